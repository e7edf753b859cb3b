"""Batch normalisation over every axis but the last (Ioffe and Szegedy 2015, Algorithm 1)."""
