"""Depth: what goes is what brute force on transformers' own model misses least; gaps are answered for.

Blocks are merged by their weights.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.conftest import Maker
from tests.pipeline.prune.masking import masked_model
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy, kl_div, log_softmax
from transformers import AutoModelForCausalLM

from secateur.calibrate.calibration import Calibration, calibration_tokens
from secateur.core.footprint import footprint
from secateur.core.plan import Plan
from secateur.core.target import Target
from secateur.model.handle import open_model
from secateur.model.written.checkpoint import Checkpoint
from secateur.pipeline.prune.apply import apply
from secateur.pipeline.prune.depth.decide import Depth
from secateur.pipeline.prune.plan import plan
from secateur_runtime.errors import TargetError, UsageError

CALIBRATION = Calibration(samples=8, window=48)
DEEP = {"num_hidden_layers": 6}
BLOCKS = tuple(str(index) for index in range(1, 5))
HALVES = tuple(f"{index}.{part}" for index in BLOCKS for part in ("attn", "ffn"))


def _plan(source: Path, **fields: Any) -> Plan:
    return plan(str(source), Depth(**fields), calibration=CALIBRATION)


def _logits(source: Path, drop: Iterable[str], tokens: Tensor) -> Tensor:
    with torch.no_grad():
        model = masked_model(source, Plan(model="", drop=tuple(drop)))
        logits: Tensor = model(tokens, use_cache=False).logits
    return logits[:, :-1].flatten(0, 1).double()


def _states(source: Path, tokens: Tensor) -> list[Tensor]:
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    seen: list[Tensor] = []
    for layer in model.model.layers:
        layer.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
        layer.post_attention_layernorm.register_forward_pre_hook(
            lambda _module, inputs: seen.append(inputs[0])
        )
        last = layer.register_forward_hook(
            lambda _module, _inputs, output: seen.append(output[0] if isinstance(output, tuple) else output)
        )
    with torch.no_grad():
        model(tokens, use_cache=False)
    last.remove()
    # Every block's output is the next one's input; only the last one's has to be seen on its own.
    return (
        [*seen[: 3 * len(model.model.layers)]]
        if len(seen) == 2 * len(model.model.layers) + 1
        else _unique(seen)
    )


def _unique(seen: list[Tensor]) -> list[Tensor]:
    return [first for first, second in pairwise(seen) if not torch.equal(first, second)] + seen[-1:]


@pytest.mark.parametrize("criterion", ["kl", "loss"])
@pytest.mark.parametrize("sub_blocks", [False, True])
def test_each_step_drops_what_costs_least_per_byte(
    tiny: Maker, monkeypatch: pytest.MonkeyPatch, criterion: str, sub_blocks: bool
) -> None:
    # Random halves cost nearly alike: bfloat16 products would decide.
    monkeypatch.setattr("secateur.pipeline.prune.depth.decide.arithmetic", lambda _kind: nullcontext())
    monkeypatch.setattr(
        "secateur.pipeline.prune.depth.search.RemovalSearch.trimmed", lambda _self, drop: tuple(drop)
    )
    source = tiny("llama", **DEEP)
    graph = open_model(str(source)).graph
    tokens = calibration_tokens(open_model(str(source)), CALIBRATION, 0)
    plan = _plan(source, drop_layers=2, criterion=criterion, sub_blocks=sub_blocks)
    dense = _logits(source, (), tokens)

    def cost(drop: tuple[str, ...]) -> float:
        logits, targets = _logits(source, drop, tokens), tokens[:, 1:].flatten()
        if criterion == "loss":
            return float(cross_entropy(logits, targets))
        return float(
            kl_div(log_softmax(logits, -1), log_softmax(dense, -1), reduction="none", log_target=True)
            .sum(-1)
            .mean()
        )

    def size(drop: Iterable[str]) -> int:
        return graph.parameters - footprint(graph, {}, tuple(drop), 1).parameters

    wanted, names = size(["1", "2"]), HALVES if sub_blocks else BLOCKS
    gone: tuple[str, ...] = ()
    for name in plan.drop:
        left = [other for other in names if other not in gone]
        most = min([size([other]) for other in left if size([*gone, other]) >= wanted], default=10**9)
        rate = {other: (cost((*gone, other)) - cost(gone)) / min(size([other]), most) for other in left}
        assert rate[name] <= min(rate.values()) + 1e-3 * (max(rate.values()) - min(rate.values()))
        gone = (*gone, name)
    assert size(gone) >= wanted
    assert size(gone[:-1]) < wanted


@pytest.mark.parametrize("sub_blocks", [False, True])
def test_influence_drops_the_least_turning(tiny: Maker, sub_blocks: bool) -> None:
    source = tiny("llama", **DEEP)
    tokens = calibration_tokens(open_model(str(source)), CALIBRATION, 0)
    states = _states(source, tokens)
    assert len(states) == 13
    graph = open_model(str(source)).graph
    turned = {}
    for name in HALVES if sub_blocks else BLOCKS:
        index, _, part = name.partition(".")
        start, end = (2 * int(index) + (part == "ffn"), 2 * int(index) + (1 if part == "attn" else 2))
        price = graph.parameters - footprint(graph, {}, (name,), 1).parameters
        turned[name] = float((1 - cosine_similarity(states[start], states[end], dim=-1)).mean()) / price
    plan = _plan(source, drop_layers=2, criterion="influence", sub_blocks=sub_blocks)
    left = [value for name, value in turned.items() if name not in plan.drop]
    assert max(turned[name] for name in plan.drop) <= min(left) * 1.02


def test_angular_drops_the_run_that_turns_the_last_positions_least(tiny: Maker) -> None:
    source = tiny("llama", **DEEP)
    tokens = calibration_tokens(open_model(str(source)), CALIBRATION, 0)
    states = [state[:, -1].double() for state in _states(source, tokens)]
    angles = {
        start: float(cosine_similarity(states[2 * start], states[2 * start + 4], dim=-1).arccos().mean())
        for start in (1, 2, 3)
    }
    best = min(angles, key=lambda start: angles[start])
    assert _plan(source, drop_layers=2, criterion="angular").drop == (str(best), str(best + 1))


@pytest.mark.parametrize("by_hand", [False, True])
def test_laco_merges_by_the_sum_of_differences(tiny: Maker, tmp_path: Path, by_hand: bool) -> None:
    source = tiny("llama", **DEEP)
    plan = _plan(source, drop_layers=2, criterion="laco")
    if by_hand:
        plan = Plan(model=plan.model, drop=("2", "3", "5"), merge={"1": ("2", "3"), "4": ("5",)})
    assert sorted(name for others in plan.merge.values() for name in others) == sorted(plan.drop)
    apply(plan, str(source), tmp_path / "out")
    given = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).state_dict()
    made = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).state_dict()
    alive = [str(index) for index in range(6) if str(index) not in plan.drop]
    for place, index in enumerate(alive):
        for name in (name for name in given if name.startswith(f"model.layers.{index}.")):
            others = [given[name.replace(f".{index}.", f".{other}.")] for other in plan.merge.get(index, ())]
            meant = given[name] + sum(other - given[name] for other in others)
            torch.testing.assert_close(
                made[name.replace(f".{index}.", f".{place}.")], meant, rtol=1e-5, atol=1e-6
            )


def test_merging_takes_the_neighbour_that_turns_the_last_states_least(tiny: Maker) -> None:
    source = tiny("llama", **DEEP)
    tokens = calibration_tokens(open_model(str(source)), CALIBRATION, 0)
    dense = _states(source, tokens)[-1]
    plan, cost = _plan(source, drop_layers=1, criterion="laco"), {}
    for name in BLOCKS:
        model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
        # One block merged into another, w + (w' - w), is that other one.
        layers = model.model.layers
        del layers[int(name) - 1]
        seen: list[Tensor] = []
        layers[-1].register_forward_hook(
            lambda _module, _inputs, output, seen=seen: seen.append(
                output[0] if isinstance(output, tuple) else output
            )
        )
        with torch.no_grad():
            model(tokens, use_cache=False)
        cost[name] = float((1 - cosine_similarity(seen[0], dense, dim=-1)).mean())
    assert cost[plan.drop[0]] <= min(cost.values()) * 1.02
    assert plan.merge == {str(int(plan.drop[0]) - 1): plan.drop}


@pytest.mark.parametrize("criterion", ["kl", "laco"])
def test_a_killed_run_ends_with_the_same_bytes(
    tiny: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, criterion: str
) -> None:
    source = tiny("llama", **DEEP)
    plan = _plan(source, drop_layers=2, criterion=criterion)
    apply(plan, str(source), tmp_path / "whole")
    write = Checkpoint.write

    def dying(self: Checkpoint, index: int, tensors: dict[str, Tensor]) -> None:
        if index == 3:
            raise KeyboardInterrupt
        write(self, index, tensors)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Checkpoint, "write", dying)
        apply(plan, str(source), tmp_path / "killed")
    assert apply(plan, str(source), tmp_path / "killed").resumed_blocks == 2
    for shard in (tmp_path / "whole").glob("*.safetensors"):
        assert shard.read_bytes() == (tmp_path / "killed" / shard.name).read_bytes()
        assert load_file(shard)


@pytest.mark.parametrize("target", ["params=70%", "ratio=0.3", "ram=700kB@ctx512"])
@pytest.mark.parametrize("sub_blocks", [False, True])
def test_a_target_is_met_and_nothing_goes_in_vain(tiny: Maker, target: str, sub_blocks: bool) -> None:
    graph = open_model(str(tiny("llama", dtype="bfloat16", **DEEP))).graph
    plan = _plan(tiny("llama", dtype="bfloat16", **DEEP), target=target, sub_blocks=sub_blocks)
    whole, wanted = footprint(graph, {}, (), 2), Target.parse([target])
    assert wanted.met(footprint(graph, {}, plan.drop, 2), whole)
    for name in plan.drop:
        assert not wanted.met(footprint(graph, {}, [other for other in plan.drop if other != name], 2), whole)


def test_what_is_protected_stays(tiny: Maker) -> None:
    source = tiny("llama", **DEEP)
    assert set(
        _plan(source, drop_layers=1, sub_blocks=True, protect=["*.attn", "first=2"], layers="1-3").drop
    ) <= {"2.ffn", "3.ffn"}
    assert _plan(source, drop_layers=1, protect=["first=2"], layers="0-2").drop == ("2",)


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({}, UsageError, "one of --drop-layers"),
        ({"drop_layers": 1, "ratio": 0.2}, UsageError, "one of --drop-layers"),
        ({"drop_layers": 5}, UsageError, "at most 4 blocks' worth"),
        ({"ratio": 1.5}, UsageError, "outside"),
        ({"target": "ratio=0.9"}, TargetError, "the nearest is ratio="),
        ({"target": "params=1B"}, UsageError, "nothing to drop"),
        ({"drop_layers": 1, "criterion": "laco", "repair": "seam"}, UsageError, "leave out --repair seam"),
        ({"drop_layers": 1, "criterion": "klo"}, UsageError, "did you mean kl"),
        ({"drop_layers": 1, "repair": "lsq"}, UsageError, "known: seam, none"),
        ({"drop_layers": 1, "layers": "0"}, UsageError, "nothing to drop"),
        (
            {"drop_layers": 2, "criterion": "angular", "protect": ["2", "4"]},
            UsageError,
            "no run of consecutive blocks",
        ),
    ],
)
def test_what_cannot_work_is_refused(
    tiny: Maker, fields: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        _plan(tiny("llama", **DEEP), **fields)


def test_norms_after_the_halves_leave_nothing_to_refit(tiny: Maker) -> None:
    source = tiny("gemma3_text")
    assert _plan(source, drop_layers=1).made_by["repair"] == "none"
    with pytest.raises(UsageError, match="use --repair none"):
        _plan(source, drop_layers=1, repair="seam")
