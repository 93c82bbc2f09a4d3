"""Keep the whole model in every situation."""

from __future__ import annotations

from pathlib import Path

from secateur_runtime.policies import Choices, Decision, Observation, Policy, policy


@policy("none", levels=True, fits=False)
def none(choices: Choices, file: Path | None) -> Policy:
    """Never remove anything: the baseline for every other policy."""

    def decide(seen: Observation) -> Decision:
        return choices.level(0, seen)

    return decide
