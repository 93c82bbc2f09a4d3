"""The input features of a trained policy, scaled to about the same size."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from secateur_runtime.ladder_costs import Choices, Mask, Observation

Vector = NDArray[np.float32]

NAMES = (
    "log2 batch",
    "log2 tokens",
    "log2 remaining",
    "available",
    "kv share",
    "log2 latency",
    "level",
    "missing",
    "cache of need",
)
"""Features of every observation. Available and missing bytes are shares of what the whole model needs; `cache
of need` is the share of that need which is KV cache.
"""
_LATENCY = 1e-4


def features(choices: Choices, seen: Observation) -> Vector:
    """Return the numbers of `NAMES`, `[9]`."""
    missing = choices.missing(seen)
    whole = missing + seen.available
    latency = np.log2(max(seen.latency, _LATENCY) / _LATENCY)
    found = [
        np.log2(seen.batch),
        np.log2(seen.tokens),
        np.log2(1 + seen.remaining),
        seen.available / whole,
        seen.kv_share,
        latency,
    ]
    found += [seen.level / len(choices.units), missing / whole, choices.cache[0] * seen.positions / whole]
    return np.array(found, dtype=np.float32)


def still_missing(choices: Choices, seen: Observation, mask: Mask) -> Vector:
    """Return the additional features of the unit formulation, `[1 + n]`.

    These are the share of the whole need still missing without the steps of `mask`, and `mask` itself.
    """
    missing = choices.missing(seen)
    left = (missing - float(choices.frees(seen) @ mask)) / (missing + seen.available)
    return np.concatenate([[left], mask]).astype(np.float32)
