"""The gateway's memory: one SQLite file, written by one connection in one thread."""
