"""Schedules of the learning rate over a run."""

from __future__ import annotations

import math
from typing import Literal, get_args

Schedule = Literal["cosine", "wsd"]
SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)
_DECAY = 0.2
"""Share of a run over which `wsd` decays."""


def rate(schedule: Schedule, step: int, steps: int, warmup: int, floor: float = 0.0) -> float:
    """Return the learning rate of step `step` of `steps`, counted from 0, as a share of the highest.

    warmup: steps over which the rate rises. `cosine` then falls to `floor` along half a cosine; `wsd` (warm
    up, stay, decay, arXiv:2404.06395) is constant until the last fifth of the run and falls to `floor` in a
    straight line.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if schedule == "cosine":
        fallen = 0.5 - 0.5 * math.cos(math.pi * (step - warmup) / max(steps - warmup, 1))
    else:
        start = max(steps - round(_DECAY * steps), warmup)
        fallen = max(step - start, 0) / max(steps - start, 1)
    return 1 - (1 - floor) * fallen
