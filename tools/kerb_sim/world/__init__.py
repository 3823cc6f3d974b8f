"""The world around the boards: containers, air, sound, lamps; and its own record of them."""
