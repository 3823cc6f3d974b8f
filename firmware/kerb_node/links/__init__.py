"""One file a link: input and output only; what the bytes mean is decided elsewhere."""
