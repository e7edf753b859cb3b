"""Elementwise maths with broadcasting, and the gradients."""
