"""Batching, sampling and the memory controller."""
