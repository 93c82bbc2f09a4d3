"""The stored layout of matrices quantized to 8 or 4 bits, as the kernels read them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from secateur.quantizers.rtn import plainly
from secateur_runtime.kernels.kernel_weight import CODES_BYTES, CODES_CHUNK, Weight
from secateur_runtime.kernels.quantized import usual_grid

INT4: torch.dtype = torch.int4  # type: ignore[attr-defined]
_BITS = {torch.int8: 8, INT4: 4}
_SCALE = 2
"""Bytes of a scale."""


@dataclass(frozen=True, slots=True)
class Coded:
    """The layout of a matrix with `inputs` columns in codes of `bits` bits."""

    bits: int
    inputs: int

    @classmethod
    def of(cls, dtype: torch.dtype, inputs: int, *, outside: bool) -> Coded | None:
        """Return the layout of a matrix, or None if `dtype` is a floating-point type.

        outside: whether the matrix belongs to no block; such a matrix has at least 8 bits.
        """
        bits = _BITS.get(dtype)
        return None if bits is None else cls(8 if outside else bits, inputs)

    @property
    def group(self) -> int:
        """Inputs that share a scale."""
        return usual_grid(self.bits, self.inputs).group

    @property
    def chunk(self) -> tuple[int, int]:
        """Inputs whose codes are interleaved, and the bytes of these codes."""
        return (1, 1) if self.bits == 8 else (CODES_CHUNK, CODES_BYTES)

    def bytes(self, rows: int) -> int:
        """Return the bytes of `rows` rows."""
        return rows * (self._row + _SCALE * (self.inputs // self.group))

    def shapes(self, rows: int, dim: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return the shapes of codes and scales; the inputs come first if `dim` is 1."""
        codes = (rows, self._row)
        scales = (rows, self.inputs // self.group)
        return (codes[::-1], scales[::-1]) if dim else (codes, scales)

    def arrays(self, weight: Tensor, dim: int) -> tuple[Tensor, Tensor]:
        """Return codes and scales of a matrix.

        If `dim` is 1, inputs come first in the matrix and in the results.
        """
        codes, scales = Weight(plainly((weight.T if dim else weight).float().contiguous(), self.bits)).parts
        return (codes.T, scales.T) if dim else (codes, scales)

    @property
    def _row(self) -> int:
        inputs, size = self.chunk
        return -(-self.inputs // inputs) * size
