"""Auto: every plan tried meets the target, and the one taken diverges least on held-out text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import Maker
from tests.pipeline.prune.masking import masked_model
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax
from typer.testing import CliRunner

import secateur
from secateur.calibrate.calibration import Calibration, calibration_tokens
from secateur.cli.main import app
from secateur.core.footprint import footprint
from secateur.core.plan import Plan
from secateur.core.target import Target
from secateur.model.handle import open_model
from secateur.model.written.pruned_config import is_stock
from secateur.pipeline.prune.auto.decide import HELD_OUT, Auto
from secateur.pipeline.prune.auto.plan_divergence import PlanDivergence
from secateur_runtime.errors import SecateurError, TargetError, UsageError

CALIBRATION = Calibration(samples=6, window=48)
MUCH = Calibration(samples=32, window=64)
DEEP = {"num_hidden_layers": 5}


@pytest.fixture
def rehearsed(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """The plans that were measured."""
    seen: list[Plan] = []

    class Spy(PlanDivergence):
        def __call__(self, plan: Plan) -> float:
            seen.append(plan)
            return super().__call__(plan)

    monkeypatch.setattr("secateur.pipeline.prune.auto.decide.PlanDivergence", Spy)
    return seen


def _plan(source: Path, **fields: Any) -> Plan:
    goal = Auto(**{"align": 8, "units": ("ffn", "kv"), **fields})
    return secateur.plan(str(source), goal, calibration=CALIBRATION)


def _tried(plan: Plan) -> dict[str, float]:
    return {
        name: float(cost)
        for name, _, cost in (one.rpartition(" ") for one in plan.made_by["tried"].split("; "))
    }


@pytest.mark.parametrize("target", ["ratio=0.3", "size=600kB", "ram=700kB@ctx512"])
def test_every_plan_tried_meets_the_target(tiny: Maker, rehearsed: list[Plan], target: str) -> None:
    graph = open_model(str(tiny("llama", **DEEP))).graph
    plan = _plan(tiny("llama", **DEEP), target=target)
    whole = footprint(graph, {}, (), 4)
    assert len(rehearsed) >= 4
    assert any(one.keep and one.drop for one in rehearsed)
    assert any(one.drop and not one.keep for one in rehearsed)
    for one in rehearsed:
        assert Target.parse([target]).met(footprint(graph, one.keep, one.drop, 4), whole)
        # One step wider anywhere, or with anything that was dropped, it would not.
        sizes = {group.name: group.size for block in graph.blocks for group in block.groups}
        if one.keep:
            wider = [
                {**one.keep, name: range(min(len(kept) + (8 if name.endswith("ffn") else 1), sizes[name]))}
                for name, kept in one.keep.items()
            ]
            assert any(
                not Target.parse([target]).met(footprint(graph, keep, one.drop, 4), whole) for keep in wider
            )
        else:
            assert all(
                not Target.parse([target]).met(
                    footprint(graph, {}, [x for x in one.drop if x != name], 4), whole
                )
                for name in one.drop
            )
    assert len(_tried(plan)) == len(rehearsed)


def _divergence(source: Path, plan: Plan, tokens: Tensor) -> float:
    with torch.no_grad():
        dense, cut = (
            log_softmax(masked_model(source, one)(tokens, use_cache=False).logits.double(), -1)
            for one in (Plan(model=""), plan)
        )
    return float(kl_div(cut, dense, reduction="none", log_target=True).sum(-1).mean())


def test_what_is_taken_diverges_least_on_text_held_out(tiny: Maker, rehearsed: list[Plan]) -> None:
    source = tiny("llama", **DEEP)
    plan = _plan(source, target="ratio=0.3", repair="none")
    tokens = calibration_tokens(open_model(str(source)), CALIBRATION, 0)
    assert min(HELD_OUT, len(tokens) // 2) == 3
    # Windows that judge are joined to one.
    found = [_divergence(source, one, tokens[-3:].reshape(1, -1)) for one in rehearsed]
    best = rehearsed[found.index(min(found))]
    assert (plan.keep, plan.drop) == (best.keep, best.drop)
    said = _tried(plan)
    assert list(said.values()) == sorted(said.values())
    # Products in bfloat16 here, float64 there.
    assert sorted(found) == pytest.approx(list(said.values()), rel=0.05, abs=2e-4)


# Projections apart, in one, without positions in some blocks, and behind four norms;
# tests/model/test_nonuniform.py cuts the others alike.
@pytest.mark.parametrize("family", ["llama", "phi3", "smollm3", "gemma2"])
def test_every_kind_of_family_decides_and_the_result_loads(tiny: Maker, tmp_path: Path, family: str) -> None:
    source = tiny(family)
    plan = _plan(source, target="params=85%")
    made = secateur.apply(plan, str(source), tmp_path / "out")
    graph = open_model(str(source)).graph
    assert made.parameters <= 0.85 * graph.parameters
    assert made.parameters == footprint(graph, plan.keep, plan.drop, 4).parameters


def test_the_same_seed_gives_the_same_plan(tiny: Maker) -> None:
    plans = [_plan(tiny("llama", **DEEP), target="ratio=0.25").to_json() for _ in range(2)]
    assert plans[0] == plans[1]


def test_uniform_tries_only_what_stock_classes_load(tiny: Maker, rehearsed: list[Plan]) -> None:
    source = tiny("llama", **DEEP)
    _plan(source, target="ratio=0.3", uniform=True)
    assert len(rehearsed) >= 3
    assert all(is_stock(open_model(str(source)), one) for one in rehearsed)
    assert any(one.keep and one.drop for one in rehearsed)


def test_what_is_protected_stays_whole(tiny: Maker, rehearsed: list[Plan]) -> None:
    _plan(tiny("llama", **DEEP), target="ratio=0.2", protect=("*.kv", "2.ffn"), layers="1-4")
    for one in rehearsed:
        assert not any(name.endswith("kv") or name in ("0.ffn", "2.ffn") for name in one.keep)
        assert not set(one.drop) & {"1", "2", "3", "2.ffn", "1.attn", "2.attn", "3.attn"}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"target": "ratio=0.3", "units": ("hidden",)}, "--method auto narrows ffn and kv"),
        ({"target": "ratio=0.3", "repair": "affine"}, "chooses the repair by itself"),
        ({"target": "ratio=0.3", "uniform": True, "layers": "1-2"}, "--uniform narrows every block alike"),
        ({"target": "params=100%"}, "must be a share below 1"),
        ({"target": "params=999M"}, "meets params=999M as it is"),
        ({"target": "ratio=0.3", "protect": ("nothing",)}, "matches no"),
        ({"target": "ratio=0.3", "protect": ("first=9",)}, "leave nothing to cut"),
        ({"target": "ratio=0.3", "align": 1000}, "align"),
    ],
)
def test_bad_input_is_one_line(tiny: Maker, fields: dict[str, object], said: str) -> None:
    with pytest.raises(SecateurError, match=said) as caught:
        _plan(tiny("llama", **DEEP), **fields)
    assert "\n" not in str(caught.value)


def test_one_window_cannot_both_find_and_judge(tiny: Maker) -> None:
    with pytest.raises(UsageError, match="at least 2 windows"):
        secateur.plan(
            str(tiny("llama")), Auto(target="ratio=0.3"), calibration=Calibration(samples=1, window=48)
        )


def test_what_is_out_of_reach_names_what_is_not(tiny: Maker) -> None:
    source = tiny("llama")
    with pytest.raises(TargetError, match="the nearest is ratio=") as caught:
        _plan(source, target="ratio=0.95")
    near = str(caught.value).rpartition(" ")[2]
    plan = _plan(source, target=near)
    graph = open_model(str(source)).graph
    assert Target.parse([near]).met(footprint(graph, plan.keep, plan.drop, 4), footprint(graph, {}, (), 4))


def test_the_command_shows_what_was_tried(tiny: Maker, tmp_path: Path) -> None:
    arguments = [
        "--method",
        "auto",
        "--target",
        "ratio=0.3",
        "--align",
        "8",
        "--samples",
        "4",
        "--calib-window",
        "48",
        "-q",
    ]
    result = CliRunner().invoke(app, ["prune", str(tiny("llama")), "-o", str(tmp_path / "out"), *arguments])
    assert result.exit_code == 0, result.output
    assert "width ffn" in result.output
    assert "depth" in result.output
    plan = Plan.from_json((tmp_path / "out" / "plan.json").read_text())
    assert "tried: width ffn" in plan.explain(open_model(str(tiny("llama"))).graph)
