"""From echoes to a distance with its quality. Pure: numbers in, numbers out."""
