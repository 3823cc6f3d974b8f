"""The preloaded library: its C source, and what builds and steers it."""
