"""Two marks on a gauge, as one would write it first."""

from __future__ import annotations

from pathlib import Path

from secateur_runtime.policies import Choices, Decision, Observation, Policy, policy

STAGES = 8
HIGH = 0.95
LOW = 0.80


@policy("threshold", levels=True)
def threshold(choices: Choices, file: Path | None) -> Policy:
    """Go one stage down where over 95 % of the memory is taken, one up where under 80 % would be.

    A stage is an eighth of the ladder.

    It looks at what the sequences hold now, not at what they will come to, and moves one stage at a time: it
    can be late.
    """
    count = len(choices.units)
    stages = sorted({round(count * stage / STAGES) for stage in range(STAGES + 1)})

    def decide(seen: Observation) -> Decision:
        now = Observation(batch=seen.batch, tokens=seen.tokens, available=seen.available)
        needs = choices.needs(now)
        level = seen.level
        if needs[level] > HIGH * seen.available:
            level = next((stage for stage in stages if stage > level), count)
        else:
            higher = next((stage for stage in reversed(stages) if stage < level), 0)
            if needs[higher] < LOW * seen.available:
                level = higher
        return choices.level(level, seen)

    return decide
