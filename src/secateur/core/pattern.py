"""Sparsity patterns: a ratio such as `0.5`, or N:M such as `2:4`.

N:M retains N of every M consecutive inputs of a row.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from secateur_runtime.errors import UsageError

Scope = Literal["row", "tensor"]
"""Which weights compete: those of one output row, or all of one tensor."""

_N_OF_M = re.compile(r"(\d{1,4}):(\d{1,4})")


@dataclass(frozen=True, slots=True)
class Pattern:
    """Either a `ratio` of zeros in [0, 1), or `n` survivors in every `m` consecutive inputs of a row."""

    ratio: float
    n: int = 0
    m: int = 0

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Parse `0.5`, `50%` or `2:4`; raises UsageError with the reason."""
        match = _N_OF_M.fullmatch(text.strip())
        if match:
            n = int(match[1])
            m = int(match[2])
            if not 0 < n < m:
                raise UsageError(
                    f"pattern {text!r} keeps {n} of every {m}: N must be at least 1 and less than M"
                )
            return cls(1 - n / m, n, m)
        return cls(_ratio(text))

    def check(self, tensor: str, in_features: int) -> None:
        """Raise UsageError if a row of `in_features` inputs cannot hold this pattern."""
        if self.m and in_features % self.m:
            raise UsageError(
                f"pattern {self} does not fit {tensor}: its width {in_features} is not a multiple of {self.m}"
            )

    def kept(self, numel: int) -> int:
        """Number of survivors among `numel` weights."""
        return numel // self.m * self.n if self.m else numel - round(numel * self.ratio)

    def __str__(self) -> str:
        return f"{self.n}:{self.m}" if self.m else f"{self.ratio:.6g}"


def _ratio(text: str) -> float:
    stripped = text.strip()
    try:
        ratio = float(stripped[:-1]) / 100 if stripped.endswith("%") else float(stripped)
    except ValueError:
        raise UsageError(
            f"sparsity {text!r} is neither a ratio such as 0.5 nor a pattern such as 2:4"
        ) from None
    if not 0 <= ratio < 1:
        raise UsageError(f"sparsity {text} is outside [0, 1)")
    return ratio
