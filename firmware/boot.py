"""Runs first after every reset; it alone decides which application tree main.py will find.

Rule: there is one tree, /kerb_node, so there is nothing to decide yet. Keep it short: what fails
here cannot be mended from afar.
"""

import gc

gc.collect()
