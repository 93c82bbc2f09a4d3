"""TODO docstring."""

from __future__ import annotations

from dataclasses import dataclass

from secateur.tensors.precision import Arithmetic


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to write.

    dtype: storage type, `auto` or a name of `DTYPES`.
    arithmetic: of matrix products; `None` takes bfloat16, or float32 where units are cut.
    memory: bytes of hidden states held in memory before a scratch file is used.
    """

    dtype: str = "auto"
    arithmetic: Arithmetic | None = None
    memory: int = 1 << 30
    overwrite: bool = False
