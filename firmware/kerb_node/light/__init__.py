"""Which level a lamp burns at, why, and how it gets there. Pure: numbers in, numbers out."""
