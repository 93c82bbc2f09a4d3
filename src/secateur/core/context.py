"""What every step of one run shares, made at the edge and passed on as one."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

from secateur.core.progress import Progress, Silent
from secateur.core.write_settings import Settings


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
