"""Which moments of a linear's inputs a method may ask for."""

from __future__ import annotations

MOMENTS = frozenset({"input_sq", "input_mean", "input_abs", "gram"})
"""Fields of `LinearStats` that calibration fills for the methods that need them."""
