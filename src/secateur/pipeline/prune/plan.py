"""Decide what a model loses: a goal and a model in, a plan out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from secateur.calibrate.calibration import Calibration
from secateur.core.context import RunContext
from secateur.core.plan import Plan
from secateur.core.progress import Progress, Silent
from secateur.model.handle import ModelHandle, open_model
from secateur.pipeline.prune.kinds import Goal, kind_of
from secateur.pipeline.prune.weights.decide import Sparsity
from secateur_runtime.errors import UsageError


def plan(
    src: str,
    goal: Goal | None = None,
    *,
    calibration: Calibration | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    **weights: Any,
) -> Plan:
    """Decide what goes from the model `src`.

    goal: of a kind of `PRUNINGS`: a `Sparsity`, a `Width`, a `Depth`, a `Vocab`, an `Auto`. Left out,
    `weights` are the fields of a `Sparsity`: `plan("model", sparsity=0.5, method="wanda")`.
    Raises SecateurError for a model, a text or options that cannot work.
    """
    wanted = goal_of(goal, weights)
    context = RunContext(seed=seed, progress=progress or Silent())
    return decide(open_model(src), wanted, calibration or Calibration(), context)


def decide(model: ModelHandle, goal: Goal, calibration: Calibration, context: RunContext) -> Plan:
    """Decide what goes from an opened model; see `plan`."""
    return kind_of(goal).decide(model, goal, calibration, context)


def goal_of(goal: Goal | None, weights: Mapping[str, Any]) -> Goal:
    """Return the goal, or the `Sparsity` of the fields `weights`; raises UsageError where both are given."""
    if goal is not None and weights:
        raise UsageError(
            f"{', '.join(weights)} would be ignored with a {type(goal).__name__}: put them into it"
        )
    return goal or Sparsity(**weights)
