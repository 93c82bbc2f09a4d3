"""Blocks of unequal width load alike in the engine, the registered classes and remote code."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.conftest import Maker
from tests.killed import assert_same_files, killed_at
from tests.tiny_models import FAMILIES
from transformers import AutoModelForCausalLM

import secateur
from secateur.calibrate.calibration import Calibration
from secateur.core.context import Settings
from secateur.core.execution import Execution
from secateur.core.plan import Plan
from secateur.model.handle import open_model
from secateur.model.unequal_blocks import register
from secateur.pipeline.evaluate.verify import verify

TOKENS = torch.randint(200, (2, 40), generator=torch.Generator().manual_seed(11))
EXACT = Settings(dtype="float32")


def _plan(folder: Path, keep: dict[str, tuple[int, ...]], drop: tuple[str, ...] = ()) -> Plan:
    return Plan(model=open_model(str(folder)).digest, keep=keep, drop=drop, made_by={"repair": "none"})


def _masked(folder: Path, plan: Plan) -> torch.Tensor:
    """Logits of the whole transformers model with the removed units at zero: the independent reference."""
    whole = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    for name, units in plan.keep.items():
        index, kind = name.split(".")
        layer = whole.model.layers[int(index)]
        weight = (layer.mlp.down_proj if kind == "ffn" else layer.self_attn.o_proj).weight
        total = {"ffn": 96, "kv": 2}[kind]
        columns = weight.shape[1] // total
        removed = [
            unit * columns + offset for unit in range(total) if unit not in units for offset in range(columns)
        ]
        weight.data[:, removed] = 0
    for name in plan.drop:
        index, _, part = name.partition(".")
        layer = whole.model.layers[int(index)]
        for side in [part] if part else ["attn", "ffn"]:
            (layer.self_attn.o_proj if side == "attn" else layer.mlp.down_proj).weight.data.zero_()
    with torch.no_grad():
        logits: torch.Tensor = whole(TOKENS).logits
    return logits


def _logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(TOKENS, use_cache=False).logits
    return logits


@pytest.mark.parametrize(
    ("family", "layout"),
    [
        *((family, "unequal") for family in FAMILIES),
        *((family, "uniform") for family in ("llama", "phi3", "gemma2")),
    ],
)
def test_surgery_equals_masking(tiny: Maker, tmp_path: Path, family: str, layout: str) -> None:
    """Unequal in every family; uniform where projections are apart, in one, and behind four norms.

    Pipeline/test_units.py has the others.
    """
    folder = tiny(family)
    blocks = len(open_model(str(folder)).graph.blocks)
    keep = {f"{index}.ffn": tuple(range(index % 3, 96, 2))[:40] for index in range(blocks)} | {
        f"{index}.kv": (index % 2,) for index in range(blocks)
    }
    drop: tuple[str, ...] = ()
    if layout == "unequal":
        keep = {"0.ffn": tuple(range(0, 96, 3)), "1.kv": (1,)}
        drop = ("1.ffn", f"{blocks - 1}.attn")
    plan = _plan(folder, keep, drop)
    made = secateur.apply(plan, str(folder), tmp_path / "out", settings=EXACT)
    assert made.parameters < open_model(str(folder)).graph.parameters
    register()
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    assert (type(model).__name__ == "SecateurForCausalLM") == (layout == "unequal")
    torch.testing.assert_close(_logits(model), _masked(folder, plan), rtol=1e-4, atol=1e-4)
    assert verify(str(tmp_path / "out")).stock_difference < 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_dropping_whole_blocks_gives_a_stock_checkpoint(tiny: Maker, tmp_path: Path, family: str) -> None:
    folder = tiny(family)
    plan = _plan(folder, {}, ("1",))
    secateur.apply(plan, str(folder), tmp_path / "out", settings=EXACT)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    assert model.config.model_type == family
    whole = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    if getattr(whole.config, "layer_types", None):
        whole.config.layer_types = [kind for index, kind in enumerate(whole.config.layer_types) if index != 1]
    del whole.model.layers[1]
    whole.config.num_hidden_layers -= 1
    torch.testing.assert_close(_logits(model), _logits(whole), rtol=1e-4, atol=1e-4)


def test_remote_code_loads_it_without_this_package_and_nothing_else_is_loaded_in_its_place(
    tiny: Maker, tmp_path: Path
) -> None:
    folder = tiny("llama")
    secateur.apply(
        _plan(folder, {"0.ffn": tuple(range(32))}, ("1.attn",)), str(folder), tmp_path / "out", settings=EXACT
    )
    torch.save(TOKENS, tmp_path / "tokens.pt")
    script = f"""
import sys
sys.modules["secateur"] = None
import torch
from transformers import AutoModelForCausalLM
try:
    AutoModelForCausalLM.from_pretrained({str(tmp_path / "out")!r}, trust_remote_code=False)
except ValueError as error:
    assert "trust_remote_code" in str(error)
else:
    raise AssertionError("something else was loaded")
options = dict(trust_remote_code=True, dtype=torch.float32)
model = AutoModelForCausalLM.from_pretrained({str(tmp_path / "out")!r}, **options).eval()
tokens = torch.load({str(tmp_path / "tokens.pt")!r})
with torch.no_grad():
    torch.save(model(tokens).logits, {str(tmp_path / "logits.pt")!r})
model.generate(tokens[:, :5], max_new_tokens=3, pad_token_id=2)
"""
    subprocess.run(
        [sys.executable, "-c", script],
        check=True,
        capture_output=True,
        env={"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"},
    )
    register()
    ours = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    torch.testing.assert_close(torch.load(tmp_path / "logits.pt"), _logits(ours), rtol=1e-5, atol=1e-5)


def test_an_interrupted_cut_goes_on_with_the_same_bytes(tiny: Maker, tmp_path: Path) -> None:

    folder = tiny("qwen2")
    base = _plan(folder, {"0.ffn": tuple(range(50)), "1.kv": (0,), "2.ffn": tuple(range(20, 60))}, ("1.ffn",))
    read = secateur.plan(
        str(folder), sparsity=0.5, method="wanda", calibration=Calibration(samples=4, window=64)
    )
    plan = replace(base, execution=Execution(unit_repair="lsq", calibration=read.execution.calibration))
    secateur.apply(plan, str(folder), tmp_path / "whole")
    with killed_at(3):
        secateur.apply(plan, str(folder), tmp_path / "out")
    assert secateur.apply(plan, str(folder), tmp_path / "out").resumed_blocks == 2
    assert_same_files(tmp_path / "out", tmp_path / "whole")
