"""Random numbers that depend on a counter alone, and dropout."""
