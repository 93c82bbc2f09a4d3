"""Plan and apply in one call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from secateur.calibrate.calibration import Calibration
from secateur.core.context import RunContext, Settings
from secateur.core.progress import Progress, Silent
from secateur.model.handle import open_model
from secateur.pipeline.prune.apply import Pruned, execute
from secateur.pipeline.prune.kinds import Goal
from secateur.pipeline.prune.plan import decide, goal_of


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
    wanted = goal_of(goal, weights)
    model = open_model(src)
    context = RunContext(seed=seed, progress=progress or Silent(), settings=settings or Settings())
    made = decide(model, wanted, calibration or Calibration(), context)
    return execute(model, made, Path(out), context)
