"""Benchmarks on a real GPU: `python -m benchmarks.gpu`."""
