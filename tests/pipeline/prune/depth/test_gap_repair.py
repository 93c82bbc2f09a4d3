"""The sub-block before a gap is refitted so that the states come nearer to those of the whole model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Maker
from torch import Tensor

from secateur.calibrate.calibration import Calibration, calibration_tokens
from secateur.core.plan import Plan
from secateur.model.handle import open_model
from secateur.pipeline.prune.apply import apply
from secateur.pipeline.prune.depth.decide import Depth
from secateur.pipeline.prune.depth.gap_repair import gaps
from secateur.pipeline.prune.plan import plan

CALIBRATION = Calibration(samples=8, window=48)


DEEP = {"num_hidden_layers": 6}


def _plan(source: Path, **fields: Any) -> Plan:
    return plan(str(source), Depth(**fields), calibration=CALIBRATION)


def test_gaps_follow_the_last_surviving_half(tiny: Maker) -> None:
    graph = open_model(str(tiny("llama", **DEEP))).graph
    found = gaps(graph, ("1.attn", "2", "3.ffn", "4.attn"))
    assert found == {
        (0, "ffn"): ((1, "attn"),),
        (1, "ffn"): ((2, "attn"), (2, "ffn")),
        (3, "attn"): ((3, "ffn"), (4, "attn")),
    }


@pytest.mark.parametrize(
    ("family", "drop"), [("llama", ("2", "3")), ("qwen2", ("1.ffn", "3.attn")), ("phi3", ("2.attn", "3"))]
)
def test_the_seam_brings_the_states_nearer_on_other_text(
    tiny: Maker, tmp_path: Path, family: str, drop: tuple[str, ...]
) -> None:
    source = tiny(family, **DEEP)
    how = _plan(source, drop_layers=1).execution
    dense, found = _final(source), {}
    for repair in ("none", "seam"):
        plan = Plan(
            model=open_model(str(source)).digest, drop=drop, execution=replace(how, gap_repair=repair)
        )
        apply(plan, str(source), tmp_path / repair)
        found[repair] = float((_final(tmp_path / repair) - dense).square().sum())
    assert found["seam"] < 0.98 * found["none"]


def _final(folder: Path) -> Tensor:
    """Return the last states for text that no plan here was made from."""
    model = open_model(str(folder))
    tokens = calibration_tokens(model, Calibration(samples=16, window=48), 0)[8:]
    stream = model.stream()
    (states,) = stream.embed([tokens])
    for index in range(len(stream)):
        with stream.open(index) as live:
            states = live(states)
    return states
