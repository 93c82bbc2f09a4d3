"""The quality that a decision leaves, and a moment of a trace as an observation."""

from __future__ import annotations

import math

from secateur.adapt.replay.traces import Moment
from secateur_runtime.ladder_costs import Choices, Mask, Observation


def quality(choices: Choices, loss: float) -> float:
    """Return the perplexity of the whole model divided by the perplexity at this loss.

    The result is 1 for the whole model, never more, and approaches 0 as the loss rises.
    """
    return math.exp(min(0.0, float(choices.losses[0]) - loss))


def quality_left(choices: Choices, gone: Mask, seen: Observation) -> float:
    """Return the quality without the removed steps, or 0 if the model does not fit.

    gone: mask of the removed steps, `[n]`.
    """
    return quality(choices, choices.loss(gone)) if choices.need(gone, seen) <= seen.available else 0.0


def observed(moment: Moment, choices: Choices, gone: Mask, latency: float = 0.0) -> Observation:
    """Return a moment of a trace as an observation.

    gone: mask of the removed steps, `[n]`; their number is used as the level. latency: seconds per token.
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
