"""kerb demo: a virtual street, a real gateway, and a checker that believes neither."""
