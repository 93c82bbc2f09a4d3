"""The best level of the ladder that fits."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from secateur_runtime.policies import Choices, Decision, Observation, Policy, policy


@policy("greedy", levels=True, paper="arXiv:2406.10594")
def greedy(choices: Choices, file: Path | None) -> Policy:
    """Take the level with the least measured loss that fits, or the one that needs least if none fits."""

    def decide(seen: Observation) -> Decision:
        needs = choices.needs(seen)
        fits = needs <= seen.available
        level = np.where(fits, choices.losses, np.inf).argmin() if fits.any() else needs.argmin()
        return choices.level(int(level), seen)

    return decide
