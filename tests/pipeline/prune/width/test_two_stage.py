"""2SSP: neurons and attention sub-blocks meet the budget together; the least missed sub-block goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import Maker

from secateur.allocate.units import Curve
from secateur.calibrate.calibration import Calibration
from secateur.core.footprint import footprint
from secateur.core.plan import Plan
from secateur.core.target import Target
from secateur.model.handle import open_model
from secateur.pipeline.evaluate.evaluate import evaluate
from secateur.pipeline.prune.apply import apply
from secateur.pipeline.prune.plan import plan
from secateur.pipeline.prune.width.decide import Width
from secateur.pipeline.prune.width.two_stage import SilencedStream
from secateur.pipeline.prune.width.unit_ranking import Ranked
from secateur_runtime.errors import TargetError, UsageError

CALIBRATION = Calibration(samples=4, window=64)
DEEP = {"num_hidden_layers": 6, "intermediate_size": 128}


def _plan(model: Path, **fields: Any) -> Plan:
    width = Width(allocation="2ssp", repair="none", criterion="contribution", align=8, **fields)
    return plan(str(model), width, calibration=CALIBRATION)


@pytest.mark.parametrize("target", ["params=70%", "ratio=0.5", "ratio=0.7", "ram=620kB@ctx512"])
def test_both_stages_together_meet_a_target(tiny: Maker, tmp_path: Path, target: str) -> None:
    source = tiny("llama", dtype="bfloat16", **DEEP)
    graph = open_model(str(source)).graph
    plan = _plan(source, target=target)
    assert Target.parse([target]).met(footprint(graph, plan.keep, plan.drop, 2), footprint(graph, {}, (), 2))
    assert plan.drop
    assert set(plan.drop) <= {f"{index}.attn" for index in range(1, 5)}
    assert {len(units) for units in plan.keep.values()} == {len(plan.keep["0.ffn"])}
    assert len(plan.keep) == 6
    apply(plan, str(source), tmp_path / "out")


def test_attention_gives_what_ffns_cannot(tiny: Maker) -> None:
    source = tiny("llama", **DEEP | {"intermediate_size": 512})
    graph = open_model(str(source)).graph
    plan = _plan(source, target="ratio=0.7")
    assert Target.parse(["ratio=0.7"]).met(
        footprint(graph, plan.keep, plan.drop, 4), footprint(graph, {}, (), 4)
    )
    assert len(plan.drop) > 1
    assert {len(units) for units in plan.keep.values()} == {128}


def test_halves_are_measured_in_the_narrowed_model(tiny: Maker, tmp_path: Path) -> None:
    source = tiny("llama")
    model, tokens = open_model(str(source)), torch.arange(40)[None]
    units = tuple((unit,) for unit in range(96))
    ranked = {"1.ffn": Ranked(model.graph.groups["1.ffn"], units, Curve((0.0,) * 97, 1))}
    apply(Plan(model=model.digest, keep={"1.ffn": tuple(range(60, 96))}), str(source), tmp_path / "out")
    states = []
    for stream in (open_model(str(tmp_path / "out")).stream(), SilencedStream(model, ranked, {"1.ffn": 60})):
        (hidden,) = stream.embed([tokens])
        for index in range(3):
            with stream.open(index) as live:
                hidden = live(hidden)
        states.append(hidden)
    assert torch.allclose(states[0], states[1], atol=1e-5)


def test_the_half_that_goes_is_the_one_the_narrowed_model_misses_least(tiny: Maker, tmp_path: Path) -> None:
    source = tiny("llama", **DEEP)
    plan = _plan(source, ratio=0.25)
    assert len(plan.drop) == 1
    losses = {}
    for index in range(1, 5):
        other = Plan(model=plan.model, keep=plan.keep, drop=(f"{index}.attn",))
        apply(other, str(source), tmp_path / str(index))
        losses[f"{index}.attn"] = evaluate(str(tmp_path / str(index)), window=64, count=4).nll
    assert losses[plan.drop[0]] == pytest.approx(min(losses.values()), abs=2e-3)


def test_protected_blocks_lose_nothing(tiny: Maker) -> None:
    plan = _plan(tiny("llama", **DEEP), ratio=0.5, protect=["first=2"], layers="0-4")
    assert {name.partition(".")[0] for name in (*plan.keep, *plan.drop)} <= {"2", "3", "4"}


def test_what_it_cannot_do_is_refused(tiny: Maker) -> None:
    with pytest.raises(UsageError, match="leave out --units"):
        _plan(tiny("llama", **DEEP), ratio=0.5, units=("ffn", "kv"))
    with pytest.raises(TargetError, match="the nearest is ratio="):
        _plan(tiny("llama", **DEEP), target="ratio=0.95")
    with pytest.raises(UsageError, match="cannot go"):
        _plan(tiny("llama", **DEEP), ratio=0.95)
