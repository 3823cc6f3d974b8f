"""What a distance means for a container."""
