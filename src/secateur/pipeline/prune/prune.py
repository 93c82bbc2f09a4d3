"""Plan and apply in one call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from secateur.calibrate.calibration import Calibration
from secateur.core.progress import Progress
from secateur.model.written.write_settings import Settings
from secateur.pipeline.prune.apply import Pruned, apply
from secateur.pipeline.prune.plan import Goal, plan


def prune(
    src: str,
    out: str | Path,
    goal: Goal | None = None,
    *,
    calibration: Calibration | None = None,
    seed: int = 0,
    settings: Settings | None = None,
    progress: Progress | None = None,
    **weights: Any,
) -> Pruned:
    """Plan and apply in one call; see `plan` and `apply`."""
    made = plan(src, goal, calibration=calibration, seed=seed, progress=progress, **weights)
    return apply(made, src, out, settings=settings, progress=progress)
