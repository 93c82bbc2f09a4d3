"""What a decision is worth, and a moment of a trace as a policy sees it."""

from __future__ import annotations

import math

from secateur.adapt.replay.traces import Moment
from secateur_runtime.ladder_costs import Choices, Mask, Observation


def quality(choices: Choices, loss: float) -> float:
    """Return what is left of the whole model's quality, its perplexity by the one at this loss.

    1 for the whole model, towards 0 downwards.
    """
    return math.exp(min(0.0, float(choices.losses[0]) - loss))


def quality_left(choices: Choices, gone: Mask, seen: Observation) -> float:
    """Return the quality that is left without the steps of a mask, or 0 where that does not fit and nothing is served."""
    return quality(choices, choices.loss(gone)) if choices.need(gone, seen) <= seen.available else 0.0


def observed(moment: Moment, choices: Choices, gone: Mask, latency: float = 0.0) -> Observation:
    """Return a moment of a trace as a policy sees it, with the steps of a mask out of the model.

    Their number stands for the level.
    """
    cache = float(choices.cache[0] - choices.freed_cache @ gone) * moment.batch * moment.tokens
    weights = float(choices.weights[0] - choices.freed_weights @ gone)
    return Observation(
        batch=moment.batch,
        tokens=moment.tokens,
        remaining=moment.remaining,
        available=moment.available,
        kv_share=cache / (cache + weights),
        latency=latency,
        level=int(gone.sum()),
    )
