"""The world around the boards: containers that fill, air, sound, lamps; and its own record of it."""
