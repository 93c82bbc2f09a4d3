"""Settings of every command that writes a model folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Arithmetic = Literal["float32", "bfloat16"]
"""Type of the factors of matrix products; they are summed in float32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a model folder is computed and written.

    dtype: storage type, `auto` or a name of `DTYPES`.
    arithmetic: precision of matrix products; None means bfloat16, or float32 where units are cut.
    memory: bytes of hidden states held in memory; a scratch file takes the rest.
    overwrite: whether an existing model folder may be replaced.
    """

    dtype: str = "auto"
    arithmetic: Arithmetic | None = None
    memory: int = 1 << 30
    overwrite: bool = False
