"""The widths of one decoder block."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BlockShape:
    """Widths of one decoder block; zero heads or a zero `intermediate_size` mean an absent sub-block."""

    n_heads: int
    n_kv_heads: int
    head_dim: int
    intermediate_size: int
