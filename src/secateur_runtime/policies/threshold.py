"""Two thresholds on used memory: the simplest policy."""

from __future__ import annotations

from pathlib import Path

from secateur_runtime.policies import Choices, Decision, Observation, Policy, policy

STAGES = 8
HIGH = 0.95
LOW = 0.80


@policy("threshold", levels=True, fits=False)
def threshold(choices: Choices, file: Path | None) -> Policy:
    """Shrink by one stage above 95 % of the memory; restore one stage if that stays below 80 %.

    A stage is an eighth of the ladder. The policy looks at what the sequences hold now, not at what they will
    need, and moves one stage at a time, so it can be too late.
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
            restored = next((stage for stage in reversed(stages) if stage < level), 0)
            if needs[restored] < LOW * seen.available:
                level = restored
        return choices.level(level, seen)

    return decide
