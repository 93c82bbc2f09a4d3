"""Decide what a model loses: a goal and a model in, a plan out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from secateur.calibrate.calibration import Calibration
from secateur.core.context import RunContext
from secateur.core.plan import Plan
from secateur.core.progress import Progress, Silent
from secateur.model.handle import ModelHandle, open_model
from secateur.pipeline.prune.auto.decide import Auto, decide_auto
from secateur.pipeline.prune.depth.decide import Depth, decide_depth
from secateur.pipeline.prune.vocabulary import Vocab, decide_vocab
from secateur.pipeline.prune.weights.decide import Sparsity, decide_sparsity
from secateur.pipeline.prune.width.decide import Width, decide_width
from secateur_runtime.errors import UsageError

Goal = Sparsity | Width | Depth | Vocab | Auto
"""What should go: weights, units, blocks, tokens, or whatever units and blocks serve a size best."""


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

    goal: a `Sparsity`, a `Width`, a `Depth`, a `Vocab` or an `Auto`. Left out, `weights` are the fields of a
    `Sparsity`: `plan("model", sparsity=0.5, method="wanda")`.
    Raises SecateurError for a model, a text or options that cannot work.
    """
    context = RunContext(seed=seed, progress=progress or Silent())
    return decide(open_model(src), goal_of(goal, weights), calibration or Calibration(), context)


def decide(model: ModelHandle, goal: Goal, calibration: Calibration, context: RunContext) -> Plan:
    """Decide what goes from an opened model; see `plan`."""
    match goal:
        case Sparsity():
            return decide_sparsity(model, goal, calibration, context)
        case Width():
            return decide_width(model, goal, calibration, context)
        case Depth():
            return decide_depth(model, goal, calibration, context)
        case Vocab():
            return decide_vocab(model, goal, calibration, context)
        case Auto():
            return decide_auto(model, goal, calibration, context)


def goal_of(goal: Goal | None, weights: Mapping[str, Any]) -> Goal:
    """Return the goal, or the `Sparsity` of the fields `weights`; raises UsageError where both are given."""
    if goal is not None and weights:
        raise UsageError(
            f"{', '.join(weights)} would be ignored with a {type(goal).__name__}: put them into it"
        )
    return goal or Sparsity(**weights)
