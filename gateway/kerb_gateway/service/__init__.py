"""What the gateway tells its service manager."""
