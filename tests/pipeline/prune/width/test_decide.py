"""Narrower models: as wide as the budget allows, the right units gone, and every refusal one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.conftest import Maker
from transformers import AutoModelForCausalLM

import secateur
from secateur.allocate.units import SPREADS
from secateur.calibrate.calibration import Calibration, calibration_tokens
from secateur.core.context import RunContext, Settings
from secateur.core.footprint import footprint
from secateur.core.plan import Plan
from secateur.core.target import Target
from secateur.criteria.units import UNIT_CRITERIA, kinds_of
from secateur.model.handle import open_model
from secateur.model.written.pruned_config import is_stock
from secateur.pipeline.prune.width.decide import Width, rank_units
from secateur_runtime.errors import TargetError, UsageError

CALIBRATION = Calibration(samples=6, window=64)
EXACT = Settings(dtype="float32", arithmetic="float32")


def _plan(model: Path, **fields: object) -> Plan:
    return secateur.plan(str(model), Width(**fields), calibration=CALIBRATION)  # type: ignore[arg-type]


def _widths(plan: Plan, kind: str = "ffn") -> dict[str, int]:
    return {name: len(units) for name, units in plan.keep.items() if name.endswith(kind)}


# Every target by both allocations, and both choices of units with both.
@pytest.mark.parametrize(
    ("target", "allocation", "units"),
    [
        ("params=80%", "uniform", ("ffn",)),
        ("params=80%", "knapsack", ("ffn", "kv")),
        ("params=110K", "uniform", ("ffn", "kv")),
        ("params=110K", "knapsack", ("ffn",)),
        ("size=260kB,params=95%", "uniform", ("ffn",)),
        ("size=260kB,params=95%", "knapsack", ("ffn", "kv")),
        ("ram=400KiB@ctx512", "uniform", ("ffn", "kv")),
        ("ram=400KiB@ctx512", "knapsack", ("ffn",)),
        ("ratio=0.3", "uniform", ("ffn",)),
        ("ratio=0.3", "knapsack", ("ffn", "kv")),
    ],
)
def test_a_target_is_met_and_not_by_more_than_a_step(
    tiny: Maker, tmp_path: Path, units: tuple[str, ...], allocation: str, target: str
) -> None:
    model = open_model(str(tiny("llama", dtype="bfloat16")))
    plan = _plan(tiny("llama", dtype="bfloat16"), units=units, allocation=allocation, target=target, align=8)
    whole, cut = footprint(model.graph, {}, (), 2), footprint(model.graph, plan.keep, (), 2)
    assert Target.parse([target]).met(cut, whole)
    made = secateur.apply(plan, str(tiny("llama", dtype="bfloat16")), tmp_path / "out")
    assert made.parameters == cut.parameters
    sizes = {group.name: group.size for block in model.graph.blocks for group in block.groups}
    steps = {name: 8 if name.endswith("ffn") else 1 for name in plan.keep}
    kinds = {name.partition(".")[2] for name in plan.keep}
    # One step wider everywhere (or anywhere, where widths are free) is too much.
    wider = (
        [[name for name in plan.keep if name.endswith(kind)] for kind in kinds]
        if allocation == "uniform"
        else [[name] for name in plan.keep]
    )
    back = [
        {
            name: range(min(len(kept) + (steps[name] if name in names else 0), sizes[name]))
            for name, kept in plan.keep.items()
        }
        for names in wider
    ]
    assert any(not Target.parse([target]).met(footprint(model.graph, keep, (), 2), whole) for keep in back)


def test_a_budget_of_memory_for_a_long_context_goes_for_the_cache(tiny: Maker) -> None:
    source = tiny("llama", dtype="bfloat16")
    graph = open_model(str(source)).graph
    plan = _plan(source, units=("ffn", "kv"), target="ram=20MB@ctx65536", allocation="knapsack", align=8)
    assert len(_widths(plan, "kv")) == 2
    assert set(plan.keep) == set(_widths(plan, "kv"))
    assert footprint(graph, plan.keep, (), 2).kv_values == footprint(graph, {}, (), 2).kv_values * 4 // 6


def test_uniform_is_the_same_everywhere_and_loads_in_stock_transformers(tiny: Maker, tmp_path: Path) -> None:
    plan = _plan(tiny("llama"), units=("ffn", "kv"), ratio=0.5, uniform=True)
    assert set(_widths(plan).values()) == {64} or set(_widths(plan).values()) == {32}
    assert set(_widths(plan, "kv").values()) == {1}
    assert is_stock(open_model(str(tiny("llama"))), plan)
    secateur.apply(plan, str(tiny("llama")), tmp_path / "out")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").config.num_key_value_heads == 1


def test_protected_blocks_and_blocks_outside_layers_stay_whole(tiny: Maker) -> None:
    model = open_model(str(tiny("gemma3_text")))
    for fields, narrowed in (
        ({"protect": ["first=1,last=2"]}, {"1", "2", "3"}),
        ({"layers": "0-1,4"}, {"0", "1", "4"}),
        ({"layers": "0-3", "protect": ["first=1", "2.ffn", "*.3.mlp.down_proj.weight"]}, {"1"}),
    ):
        plan = _plan(tiny("gemma3_text"), ratio=0.5, **fields)
        assert {name.partition(".")[0] for name in plan.keep} == narrowed
        assert not is_stock(model, plan)


def test_heads_are_kept(tiny: Maker) -> None:
    model = tiny("llama", num_key_value_heads=4)
    plan = _plan(model, units=("kv",), target="ratio=0.1", keep_heads=3, allocation="knapsack")
    assert set(_widths(plan, "kv").values()) == {3}
    assert "keep_heads" in plan.made_by


def _seen(whole: torch.nn.Module, name: str, tokens: torch.Tensor) -> torch.Tensor:
    seen: list[torch.Tensor] = []
    handle = whole.get_submodule(name).register_forward_pre_hook(
        lambda _module, inputs: seen.append(inputs[0].double())
    )
    with torch.no_grad():
        whole(tokens)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize(
    ("family", "units"),
    [
        *((family, ("ffn", "kv", "head", "hidden")) for family in ("llama", "qwen3", "phi3", "gemma2")),
        ("llama", ("head",)),
        ("phi3", ("head",)),
        ("llama", ("hidden",)),
        ("gemma2", ("hidden",)),
    ],
)
def test_heads_and_channels_meet_a_target_and_load_in_stock_transformers(
    tiny: Maker, tmp_path: Path, family: str, units: tuple[str, ...]
) -> None:
    source = tiny(family, num_attention_heads=8, num_key_value_heads=2, head_dim=16, dtype="bfloat16")
    graph = open_model(str(source)).graph
    target = "ratio=0.05" if units == ("head",) else "params=75%,ram=900kB@ctx256"
    plan = _plan(source, units=units, target=target, align=8)
    foreseen = footprint(graph, plan.keep, (), 2)
    assert Target.parse([target]).met(foreseen, footprint(graph, {}, (), 2))
    assert {name.rpartition(".")[2] for name in plan.keep} <= set(units)
    made = secateur.apply(plan, str(source), tmp_path / "out")
    assert made.parameters == foreseen.parameters
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").config.hidden_size == len(
        plan.keep.get("hidden", range(64))
    )


def test_heads_leave_every_group_alike_lowest_first(tiny: Maker) -> None:
    source = tiny("llama", num_attention_heads=8, num_key_value_heads=2, head_dim=16)
    plan = _plan(source, units=("head",), ratio=0.5, criterion="contribution", repair="none")
    whole = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    tokens = calibration_tokens(open_model(str(source)), CALIBRATION, 0)
    for index in range(3):
        name = f"model.layers.{index}.self_attn.o_proj"
        power = _seen(whole, name, tokens).flatten(0, 1).square().mean(0) * whole.get_parameter(
            f"{name}.weight"
        ).detach().double().square().sum(0)
        score = power.view(8, 16).sum(1)
        best = sorted(score[:4].topk(2).indices.tolist()) + sorted((score[4:].topk(2).indices + 4).tolist())
        assert list(plan.keep[f"{index}.head"]) == best


def test_channels_that_stay_are_the_largest_after_every_norm(tiny: Maker) -> None:
    source = tiny("qwen2")
    plan = _plan(source, units=("hidden",), ratio=0.25, align=1, repair="none")
    whole = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    tokens = calibration_tokens(open_model(str(source)), CALIBRATION, 0)
    total = torch.zeros(64, dtype=torch.float64)
    for index in range(3):
        for name in ("self_attn.q_proj", "mlp.gate_proj"):
            total += (
                _seen(whole, f"model.layers.{index}.{name}", tokens).abs().mean(1).square().mean(0).sqrt()
            )
    assert len(set(total.topk(48).indices.tolist()) ^ set(plan.keep["hidden"])) <= 2


def test_uniform_refuses_what_stock_classes_refuse(tiny: Maker) -> None:
    """Llama's class wants heads that divide the hidden size, whatever head_dim says."""
    source = tiny("llama", num_attention_heads=8, num_key_value_heads=8, head_dim=16)
    fields = {"units": ("kv",), "ratio": 0.37, "repair": "none", "criterion": "contribution"}
    assert set(_widths(_plan(source, **fields), "kv").values()) == {5}
    with pytest.raises(UsageError, match="leave out --uniform"):
        _plan(source, uniform=True, **fields)


def test_heads_of_their_own_and_channels_of_some_blocks_are_refused(tiny: Maker) -> None:
    with pytest.raises(UsageError, match="with --units kv"):
        _plan(tiny("llama", num_key_value_heads=4), units=("head",), ratio=0.2)
    with pytest.raises(UsageError, match="only uniform can do --units hidden"):
        _plan(tiny("llama"), units=("ffn", "hidden"), ratio=0.2, allocation="knapsack")
    with pytest.raises(UsageError, match="every block at once"):
        _plan(tiny("llama"), units=("hidden",), ratio=0.2, layers="1")
    with pytest.raises(UsageError, match="no --criterion 'obs' for hidden"):
        _plan(tiny("llama"), units=("hidden",), ratio=0.2, criterion="obs")


@pytest.mark.parametrize("criterion", ["wanda", "contribution"])
def test_the_units_of_highest_score_stay(tiny: Maker, criterion: str) -> None:
    """Independent reference: hooks on the whole transformers model, float64 scores."""
    source = tiny("llama")
    plan = _plan(source, ratio=0.25, criterion=criterion, align=1, repair="none")
    whole = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    tokens = calibration_tokens(open_model(str(source)), CALIBRATION, 0)
    for index in range(3):
        name = f"model.layers.{index}.mlp.down_proj"
        down, inputs = (
            whole.get_parameter(f"{name}.weight").double(),
            _seen(whole, name, tokens).flatten(0, 1),
        )
        size = down.abs().sum(0) if criterion == "wanda" else down.norm(dim=0)
        score = size * inputs.square().mean(0).sqrt()
        differing = set(score.topk(72).indices.tolist()) ^ set(plan.keep[f"{index}.ffn"])
        assert len(differing) <= 2, (
            "two units may swap where bfloat16 products move their scores past each other"
        )


@pytest.mark.parametrize("criterion", [*UNIT_CRITERIA, "magnitude", "ria", "obs"])
def test_every_criterion_ranks_every_kind_it_can(tiny: Maker, tmp_path: Path, criterion: str) -> None:
    halves = ("ffn", "kv", "head")
    units = tuple(
        kind
        for kind in (*halves, "hidden")
        if (kind in halves if criterion not in UNIT_CRITERIA else kind in kinds_of(criterion))
    )
    plan = _plan(tiny("qwen2"), units=units, ratio=0.4, criterion=criterion, align=8)
    assert plan.made_by["unit_criterion"] == criterion
    assert {name.rpartition(".")[2] for name in plan.keep} == set(units)
    secateur.apply(plan, str(tiny("qwen2")), tmp_path / "out")


@pytest.mark.parametrize("spread", [*SPREADS])
def test_every_spread_meets_a_target(tiny: Maker, tmp_path: Path, spread: str) -> None:
    model = open_model(str(tiny("llama")))
    units = ("ffn",) if spread == "2ssp" else ("ffn", "kv", "head")
    plan = _plan(
        tiny("llama"),
        units=units,
        target="ratio=0.3",
        allocation=spread,
        criterion="contribution",
        align=8,
        repair="none",
    )
    assert Target.parse(["ratio=0.3"]).met(
        footprint(model.graph, plan.keep, plan.drop, 2), footprint(model.graph, {}, (), 2)
    )
    secateur.apply(plan, str(tiny("llama")), tmp_path / "out")


def test_a_criterion_of_weights_alone_reads_no_text(tiny: Maker) -> None:
    width = Width(ratio=0.4, criterion="magnitude", repair="none")
    plan = secateur.plan(str(tiny("llama")), width, calibration=Calibration(text="not-there.txt"))
    assert plan.keep
    assert "calibration" not in plan.made_by


def test_what_leaves_costs_what_the_output_loses(tiny: Maker) -> None:
    source = tiny("llama")
    model = open_model(str(source))
    width = Width(units=("kv",), ratio=0.5, criterion="contribution", allocation="knapsack")
    tokens = calibration_tokens(model, CALIBRATION, 0)
    ranked = rank_units(
        model,
        [group for group in model.graph.blocks[1].groups if group.kind == "kv"],
        width,
        tokens,
        RunContext(),
    )["1.kv"]
    whole = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    inputs = _seen(whole, "model.layers.1.self_attn.o_proj", tokens).flatten(0, 1)
    behind = _seen(whole, "model.layers.2.input_layernorm", tokens)
    block, first = 32, ranked.steps[0][0]
    own = slice(first * block, (first + 1) * block)
    weight = whole.get_parameter("model.layers.1.self_attn.o_proj.weight").detach().double()
    lost = (inputs[:, own] @ weight[:, own].T).square().sum(1).mean()
    assert ranked.curve.errors[1] == pytest.approx(float(lost / behind.square().sum(-1).median()), rel=0.1)
    assert ranked.curve.errors[0] == 0


def test_the_nearest_target_can_be_reached(tiny: Maker) -> None:
    for target in (
        "params=10K",
        "params=5%",
        "size=20kB",
        "ram=9kB@ctx64",
        "ratio=0.99",
        "params=90%,size=1kB",
    ):
        with pytest.raises(TargetError, match="the nearest is ") as refused:
            _plan(tiny("llama"), target=target, protect=["first=1"])
        near = str(refused.value).rpartition("the nearest is ")[2]
        assert _widths(_plan(tiny("llama"), target=near, protect=["first=1"])) == {"1.ffn": 32, "2.ffn": 32}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "either --ratio"),
        ({"ratio": 0.2, "target": "params=80%"}, "either --ratio"),
        ({"ratio": 1.0}, "outside"),
        ({"ratio": 0.2, "units": ("fnn",)}, "did you mean ffn"),
        ({"ratio": 0.2, "criterion": "wonda"}, "did you mean wanda"),
        ({"ratio": 0.2, "criterion": "ppm", "units": ("ffn", "kv")}, "cannot score kv"),
        ({"ratio": 0.2, "allocation": "knapsac"}, "did you mean knapsack"),
        ({"ratio": 0.2, "allocation": "knapsack", "uniform": True}, "contradict"),
        ({"ratio": 0.2, "uniform": True, "protect": ["first=1"]}, "leave out --protect"),
        ({"ratio": 0.2, "keep_heads": 2}, "cuts none"),
        ({"ratio": 0.2, "units": ("kv",), "keep_heads": 9}, "has only 2"),
        ({"ratio": 0.2, "align": 256}, "no multiple of --align 256"),
        ({"ratio": 0.2, "repair": "lqs"}, "did you mean lsq"),
        *(
            (
                {"ratio": 0.2, "repair": name},
                "cannot repair a cut of units.*; these can: affine, bias, lsq, none",
            )
            for name in ("obs", "admm", "dsnot")
        ),
        ({"ratio": 0.01}, "less than one step would go, which is --ratio 0.333"),
        ({"ratio": 0.5, "units": ("kv",), "keep_heads": 2}, "nothing can go"),
        ({"ratio": 0.2, "repair": "bias", "units": ("hidden",)}, "leave it out"),
        ({"ratio": 0.2, "allocation": "2ssp", "units": ("ffn", "kv")}, "leave out --units"),
        ({"ratio": 0.2, "layers": "2-9"}, "has 0-2"),
        ({"ratio": 0.2, "layers": "x"}, "names no blocks"),
        ({"ratio": 0.2, "protect": ["*.ffm"]}, "matches no group"),
        ({"ratio": 0.2, "protect": ["first=9"]}, "nothing to narrow"),
        ({"target": "params=200M"}, "nothing to cut"),
        ({"target": "params=20%", "units": ("kv",), "keep_heads": 2}, "nothing can go"),
        ({"ratio": 0.9, "allocation": "knapsack"}, "cannot go"),
    ],
)
def test_options_that_cannot_work_are_refused(tiny: Maker, fields: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message) as refused:
        _plan(tiny("llama"), **fields)
    assert "\n" not in str(refused.value)
