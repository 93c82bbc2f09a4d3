"""The whole model, whatever happens."""

from __future__ import annotations

from pathlib import Path

from secateur_runtime.policies import Choices, Decision, Observation, Policy, policy


@policy("none", levels=True)
def none(choices: Choices, file: Path | None) -> Policy:
    """Never take anything away: what every other policy is compared with."""

    def decide(seen: Observation) -> Decision:
        return choices.level(0, seen)

    return decide
