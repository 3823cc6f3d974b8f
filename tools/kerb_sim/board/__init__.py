"""A virtual board: a real MicroPython process that runs the node's own files."""
