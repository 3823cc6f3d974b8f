"""An RS-485 bus of ptys."""
