"""Units that leave and biases that answer for them.

In every family that can hold them, refused in the others.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import Maker
from tests.killed import assert_same_files, killed_at
from tests.tiny_models import FAMILIES
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

import secateur
from secateur.calibrate.calibration import Calibration, calibration_tokens
from secateur.core.context import Settings
from secateur.core.execution import Execution
from secateur.core.plan import Plan
from secateur.model.handle import ModelHandle, open_model
from secateur.pipeline.prune.width.decide import Width
from secateur.pipeline.prune.width.repair_units import with_repair_biases
from secateur_runtime.errors import UsageError

CALIBRATION = Calibration(samples=6, window=64)
EXACT = Settings(dtype="float32", arithmetic="float32")
BOTH, ATTENTION = {"llama", "smollm3"}, {"llama", "smollm3", "qwen3", "gemma2", "gemma3_text"}
INNER, HEADS = tuple(range(0, 96, 3)), (1,)


def _execution(folder: Path, repair: str) -> Execution:
    read = secateur.plan(str(folder), sparsity=0.5, method="wanda", calibration=CALIBRATION)
    return Execution(unit_repair=repair, calibration=read.execution.calibration)


def _plan(folder: Path, repair: str, kinds: tuple[str, ...] = ("ffn", "kv"), **more: tuple[int, ...]) -> Plan:
    model = open_model(str(folder))
    units = {"ffn": INNER, "kv": HEADS}
    keep = {f"{block.index}.{kind}": units[kind] for block in model.graph.blocks for kind in kinds} | more
    return Plan(model=model.digest, keep=keep, execution=_execution(folder, repair))


def _last(model: nn.Module, index: int, half: str) -> nn.Linear:
    found = model.get_submodule(
        f"model.layers.{index}.{'self_attn.o_proj' if half == 'attn' else 'mlp.down_proj'}"
    )
    assert isinstance(found, nn.Linear)
    return found


@torch.no_grad()
def _input_of(model: nn.Module, module: nn.Linear, tokens: Tensor) -> Tensor:
    seen: list[Tensor] = []
    handle = module.register_forward_pre_hook(
        lambda _module, inputs: seen.append(inputs[0].flatten(0, 1).double())
    )
    model(tokens, use_cache=False)
    handle.remove()
    return torch.cat(seen)


def _kept_columns(half: str, width: int) -> Tensor:
    units, size = (HEADS, 2) if half == "attn" else (INNER, 96)
    return torch.arange(width).view(size, -1)[list(units)].flatten()


def _mend(
    whole: nn.Module, pruned: nn.Module, index: int, half: str, tokens: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Put the pruned linear in the place of the whole one.

    Return the outputs that were, those without repair, and those that are.
    """
    module, narrow = _last(whole, index, half), _last(pruned, index, half)
    inputs, weight = _input_of(whole, module, tokens), module.weight.detach().double()
    bias = module.bias.detach().double() if "bias" in dict(module.named_parameters()) else 0.0
    columns = _kept_columns(half, weight.shape[1])
    outputs = inputs @ weight.T + bias
    unrepaired = inputs[:, columns] @ weight[:, columns].T + bias
    mended = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        mended.weight.zero_()[:, columns] = narrow.weight
        mended.bias.zero_().add_(dict(narrow.named_parameters()).get("bias", 0.0))
        parent, _, leaf = (
            f"model.layers.{index}.{'self_attn.o_proj' if half == 'attn' else 'mlp.down_proj'}".rpartition(
                "."
            )
        )
        setattr(whole.get_submodule(parent), leaf, mended)
        return outputs, unrepaired, inputs @ mended.weight.double().T + mended.bias.double()


@pytest.mark.parametrize(
    ("family", "config", "repair"),
    [
        *((family, {}, "affine") for family in FAMILIES),
        *((family, {}, "bias") for family in FAMILIES if family in ATTENTION),
        ("llama", {"attention_bias": True, "mlp_bias": True}, "bias"),
        ("qwen3", {"attention_bias": True}, "affine"),
    ],
    ids=lambda value: value if isinstance(value, str) else "+".join(value),
)
def test_every_half_is_with_repair_biases_on_what_the_with_repair_biases_blocks_before_it_give(
    tiny: Maker, tmp_path: Path, family: str, config: dict[str, Any], repair: str
) -> None:
    """An independent reference: hooks on the whole transformers model, float64, one half after another."""
    folder = tiny(family, **config)
    kinds = tuple(
        kind for kind, able in (("ffn", BOTH), ("kv", ATTENTION)) if repair == "affine" or family in able
    )
    made = secateur.apply(_plan(folder, repair, kinds), str(folder), tmp_path / "out", settings=EXACT)
    assert made.reload_difference < 1e-5
    stored = json.loads((tmp_path / "out" / "config.json").read_text())
    assert stored["model_type"] == family
    whole = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    pruned = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    assert made.parameters == sum(parameter.numel() for parameter in pruned.parameters())
    tokens = calibration_tokens(open_model(str(folder)), CALIBRATION, 0)
    for index in range(len(whole.model.layers)):
        for half, able, kind in (("attn", ATTENTION, "kv"), ("ffn", BOTH, "ffn")):
            if kind in kinds:
                before, unrepaired, after = _mend(whole, pruned, index, half, tokens)
                assert (_last(pruned, index, half).bias is not None) is (family in able)
                if family in able:
                    torch.testing.assert_close(after.mean(0), before.mean(0), rtol=1e-4, atol=1e-4)
                worst = unrepaired - unrepaired.mean(0) + before.mean(0) if family in able else unrepaired
                error, limit = ((outputs - before).square().mean(0) for outputs in (after, worst))
                assert bool((error <= limit * (1 + 1e-4)).all())
                if repair == "affine":
                    assert float(error.sum()) < 0.999 * float(limit.sum())


@pytest.mark.parametrize("kinds", [("ffn",), ("kv",), ("ffn", "kv")])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_bias_that_cannot_be_held_is_refused(
    tiny: Maker, tmp_path: Path, family: str, kinds: tuple[str, ...]
) -> None:
    able = (family in BOTH or "ffn" not in kinds) and (family in ATTENTION or "kv" not in kinds)
    goal = Width(units=kinds, ratio=0.4, repair="bias", criterion="magnitude", align=8)
    if able:
        plan = secateur.plan(str(tiny(family)), goal, calibration=CALIBRATION)
        assert (
            plan.made_by["output_bias"] == {"ffn": "ffn", "kv": "attn", "ffn+kv": "attn,ffn"}["+".join(kinds)]
        )
        return
    module = "mlp.down_proj" if family in ATTENTION or "kv" not in kinds else "self_attn.o_proj"
    message = (
        f"--repair bias adds a bias to {module}, which a stock {family} config cannot hold: use --repair lsq"
    )
    with pytest.raises(UsageError, match=message):
        secateur.plan(str(tiny(family)), goal, calibration=CALIBRATION)
    with pytest.raises(UsageError, match=message):
        secateur.apply(_plan(tiny(family), "bias", kinds), str(tiny(family)), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_half_that_is_dropped_needs_no_bias(tiny: Maker, tmp_path: Path) -> None:
    folder = tiny("qwen3")
    plan = Plan(
        model=open_model(str(folder)).digest,
        keep={"1.ffn": INNER, "0.kv": HEADS},
        drop=("1.ffn",),
        execution=_execution(folder, "bias"),
    )
    secateur.apply(plan, str(folder), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["attention_bias"] is True


@pytest.mark.parametrize(("family", "said"), [("llama", "attn,ffn"), ("gemma2", "attn"), ("mistral", "none")])
def test_the_plan_and_the_card_say_which_outputs_are_only_scaled(
    tiny: Maker, tmp_path: Path, family: str, said: str
) -> None:
    plan = secateur.plan(
        str(tiny(family)),
        Width(units=("ffn", "kv"), ratio=0.4, repair="affine", align=8),
        calibration=CALIBRATION,
    )
    assert plan.made_by["output_bias"] == said
    assert Plan.from_json(plan.to_json()) == plan
    secateur.apply(plan, str(tiny(family)), tmp_path / "out")
    assert (
        f"- Outputs given a bias (others are only scaled): {said}\n"
        in (tmp_path / "out" / "README.md").read_text()
    )
    none = secateur.plan(str(tiny(family)), Width(ratio=0.4, align=8), calibration=CALIBRATION)
    assert "output_bias" not in none.made_by


@pytest.mark.parametrize("repair", ["bias", "affine"])
def test_the_biases_count_in_a_budget(tiny: Maker, tmp_path: Path, repair: str) -> None:
    """All flagged biases of the model are stored, and it is still no larger than what was asked for."""
    source = tiny("llama")
    model = open_model(str(source))
    goal = Width(target="params=80%", repair=repair, align=1, criterion="magnitude")
    plan = secateur.plan(str(source), goal, calibration=CALIBRATION)
    made = secateur.apply(plan, str(source), tmp_path / "out")
    assert made.parameters <= 0.8 * model.graph.parameters
    # One more neuron in every block, with its two biases, would be too many.
    assert made.parameters + 3 * (3 * 64 + 2) > 0.8 * model.graph.parameters
    assert f"parameters: {made.parameters:,} of {model.graph.parameters:,}" in plan.explain(
        model.graph, with_repair_biases(model, plan).graph
    )
    assert (
        f"| parameters | {model.graph.parameters:,} | {made.parameters:,} |"
        in (tmp_path / "out" / "README.md").read_text()
    )


@pytest.mark.parametrize("repair", ["bias", "affine"])
def test_blocks_of_unequal_width_and_fewer_channels_hold_them_too(
    tiny: Maker, tmp_path: Path, repair: str
) -> None:
    folder = tiny("llama", hidden_size=96, num_attention_heads=6)
    keep = {
        "hidden": tuple(channel for channel in range(96) if channel % 4),
        "0.ffn": tuple(range(40)),
        "1.kv": (1,),
        "2.head": (0, 4),
    }
    plan = Plan(
        model=open_model(str(folder)).digest,
        keep=keep,
        drop=("0.attn", "1.ffn"),
        execution=_execution(folder, repair),
    )
    made = secateur.apply(plan, str(folder), tmp_path / "out", settings=EXACT)
    assert made.reload_difference < 1e-5
    stored = open_model(str(tmp_path / "out"))
    shifts = {
        name: float(stored.source.read(name).abs().max())
        for name in stored.graph.tensors
        if name.endswith(("o_proj.bias", "down_proj.bias"))
    }
    assert {name.removeprefix("model.layers.") for name, size in shifts.items() if size} == {
        "0.mlp.down_proj.bias",
        "1.self_attn.o_proj.bias",
        "2.self_attn.o_proj.bias",
    }
    assert shifts["model.layers.2.mlp.down_proj.bias"] == 0
    torch.testing.assert_close(_stock_logits(tmp_path / "out"), _our_logits(stored), rtol=1e-4, atol=1e-4)


def _stock_logits(folder: Path) -> Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        found: Tensor = model(torch.arange(24)[None]).logits[0]
    return found


def _our_logits(model: ModelHandle) -> Tensor:
    stream = model.stream()
    (states,) = stream.embed([torch.arange(24)[None]])
    for index in range(len(stream)):
        with stream.open(index) as live:
            states = live(states)
    return torch.cat(list(stream.logits(states[0])))


@pytest.mark.parametrize(("family", "dtype"), [("llama", "float32"), ("gemma2", "bfloat16")])
def test_an_interrupted_run_goes_on_with_the_same_bytes(
    tiny: Maker, tmp_path: Path, family: str, dtype: str
) -> None:
    folder, settings = tiny(family), Settings(dtype=dtype)
    plan = _plan(folder, "affine", hidden=tuple(range(60)))
    secateur.apply(plan, str(folder), tmp_path / "whole", settings=settings)
    with killed_at(3):
        secateur.apply(plan, str(folder), tmp_path / "out", settings=settings)
    assert secateur.apply(plan, str(folder), tmp_path / "out", settings=settings).resumed_blocks == 2
    assert_same_files(tmp_path / "out", tmp_path / "whole")


def test_a_gguf_file_gets_its_biases(tiny_gguf: Maker, tmp_path: Path) -> None:
    plan = _plan(tiny_gguf("llama"), "bias")
    made = secateur.apply(plan, str(tiny_gguf("llama")), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "secateur.json").read_text())["source"] == plan.model
    assert made.reload_difference < 1e-5
    stored = open_model(str(tmp_path / "out"))
    assert float(stored.source.read("model.layers.1.mlp.down_proj.bias").abs().max()) > 0
    assert float(stored.source.read("model.layers.1.self_attn.q_proj.bias").abs().max()) == 0


def test_a_plan_that_also_prunes_weights_refits(tiny: Maker, tmp_path: Path) -> None:
    """The repair of its weights leaves that of its units as it would be alone."""
    folder = tiny("llama")
    alone = _plan(folder, "lsq", ("kv",))
    beside = Plan(
        model=alone.model,
        keep=alone.keep,
        sparsity={"model.layers.2.mlp.down_proj.weight": "0.5"},
        execution=replace(alone.execution, weight_repair="obs"),
    )
    for name, plan in (("alone", alone), ("beside", beside)):
        secateur.apply(plan, str(folder), tmp_path / name, settings=EXACT)
    name = "model.layers.1.self_attn.o_proj.weight"
    first, second = (open_model(str(tmp_path / which)).source.read(name) for which in ("alone", "beside"))
    assert torch.equal(first, second)
    with pytest.raises(UsageError, match="unknown repair of units 'obs'"):
        secateur.apply(
            Plan(model=alone.model, keep=alone.keep, execution=Execution(unit_repair="obs")),
            str(folder),
            tmp_path / "obs",
        )
