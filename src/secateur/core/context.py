"""What every step of one run shares, made at the edge and passed on as one."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, Literal

from secateur.core.progress import Progress, Silent

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


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """What every step of one run shares.

    seed: of everything random.
    progress: where progress is shown.
    settings: how a model folder is computed and written.
    results: what one step computed and a later one of the same run needs again, such as a rotation.
    """

    seed: int = 0
    progress: Progress = field(default_factory=Silent)
    settings: Settings = field(default_factory=Settings)
    results: dict[Hashable, Any] = field(default_factory=dict)
