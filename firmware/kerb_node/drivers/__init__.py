"""One file a part: it knows the part's datasheet and its pins, and nothing of the application."""
