"""The native model: weights, caches, levels."""
