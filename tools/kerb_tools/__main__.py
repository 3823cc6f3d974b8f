"""`python -m kerb_tools` is `kerb`."""

from kerb_tools.cli import main

main()
