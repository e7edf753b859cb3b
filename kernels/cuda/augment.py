"""Batches of images for training: rows picked by number, mirrored, shifted, scaled, in one call."""
