"""kerb_tools: the command line of the technician and the engineer."""
