"""TODO docstring."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BlockShape:
    """Widths of one decoder block; zero heads or a zero `intermediate_size` mean that sub-block is absent."""

    n_heads: int
    n_kv_heads: int
    head_dim: int
    intermediate_size: int
