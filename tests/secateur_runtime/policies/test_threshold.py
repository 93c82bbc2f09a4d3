"""The threshold policy moves one stage at a time."""

from __future__ import annotations

from tests.adapt.ladders import choices_of

from secateur_runtime.ladder_costs import Observation
from secateur_runtime.policies import make_policy


def test_threshold_goes_down_one_stage_and_back() -> None:
    choices = choices_of(
        [f"{block}.attn" for block in range(16)], [(100, 10)] * 16, [0.1] * 16, list(range(17))
    )
    decide = make_policy("threshold", choices)

    def level(share: float, now: int) -> int | None:
        whole = float(choices.needs(Observation(batch=1, tokens=10, available=0))[now])
        return decide(Observation(batch=1, tokens=10, available=whole / share, level=now)).level

    assert [level(0.96, 4), level(0.90, 4), level(0.70, 4), level(0.96, 16), level(0.1, 0)] == [
        6,
        4,
        2,
        16,
        0,
    ]
