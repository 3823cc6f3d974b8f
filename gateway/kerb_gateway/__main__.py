"""`python -m kerb_gateway` is `kerb-gateway`."""

from kerb_gateway.cli import main

main()
