"""Decide what a model loses: a goal and a model in, a plan out."""

from __future__ import annotations

from typing import Any

from secateur.calibrate.calibration import Calibration
from secateur.core.plan import Plan
from secateur.core.progress import Progress, Silent
from secateur.model.handle import open_model
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
    if goal is not None and weights:
        raise UsageError(
            f"{', '.join(weights)} would be ignored with a {type(goal).__name__}: put them into it"
        )
    model = open_model(src)
    text = calibration or Calibration()
    shown = progress or Silent()
    match goal or Sparsity(**weights):
        case Sparsity() as sparsity:
            return decide_sparsity(model, sparsity, text, seed, shown)
        case Width() as width:
            return decide_width(model, width, text, seed, shown)
        case Depth() as depth:
            return decide_depth(model, depth, text, seed, shown)
        case Vocab() as vocab:
            return decide_vocab(model, vocab, text, seed, shown)
        case Auto() as auto:
            return decide_auto(model, auto, text, seed, shown)
