"""One file a link to the nodes; each translates its library's errors and restarts alone."""
