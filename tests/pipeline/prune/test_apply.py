"""The main job on tiny models.

Exact sparsity, equal to pruning the whole model at once, byte-identical after a kill.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import Maker
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

import secateur
from secateur.calibrate.calibration import Calibration, calibration_tokens
from secateur.cli.main import app
from secateur.core.context import Settings
from secateur.core.execution import Execution
from secateur.core.plan import Plan
from secateur.model.handle import open_model
from secateur.model.written.checkpoint import Checkpoint
from secateur.pipeline.evaluate.verify import verify
from secateur.pipeline.prune.weights.methods import weight_methods
from secateur_runtime.errors import PlanError, VerificationError

CALIBRATION = Calibration(samples=6, window=64)
EXACT = Settings(dtype="float32", arithmetic="float32")
DOWN = "model.layers.0.mlp.down_proj.weight"


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    source = open_model(str(folder)).source
    return {name: source.read(name) for name in source.tensors}


def _bytes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.mark.parametrize("method", weight_methods())
def test_every_method_gives_the_asked_sparsity_and_leaves_the_rest_alone(
    tiny: Maker, tmp_path: Path, method: str
) -> None:
    source = tiny("llama")
    made = secateur.prune(
        str(source), tmp_path / "out", sparsity=0.5, method=method, calibration=CALIBRATION, settings=EXACT
    )
    assert made.sparsity == pytest.approx(0.5, abs=1e-3)
    before, after = _weights(source), _weights(tmp_path / "out")
    assert before.keys() == after.keys()
    for name, weight in after.items():
        if name in made.plan.sparsity:
            assert float((weight == 0).float().mean()) == pytest.approx(0.5, abs=1e-3), name
        else:
            assert torch.equal(weight, before[name]), name


@pytest.mark.parametrize("family", ["phi3", "gemma3_text", "qwen3"])
def test_patterns_hold_in_other_families_and_stock_transformers_loads_them(
    tiny: Maker, tmp_path: Path, family: str
) -> None:
    secateur.prune(
        str(tiny(family)), tmp_path / "out", sparsity="2:4", method="sparsegpt", calibration=CALIBRATION
    )
    assert verify(str(tmp_path / "out")).pruned > 0
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    down = stock.get_parameter("model.layers.1.mlp.down_proj.weight")
    assert int((down.reshape(-1, 4) != 0).sum(1).max()) <= 2


def test_wanda_equals_pruning_the_whole_model_block_after_block(tiny: Maker, tmp_path: Path) -> None:
    """An independent reference: hooks on the whole transformers model, float64 scores, stage by stage."""
    source = tiny("llama")
    made = secateur.prune(
        str(source), tmp_path / "out", sparsity=0.5, method="wanda", calibration=CALIBRATION, settings=EXACT
    )
    model = open_model(str(source))
    tokens = calibration_tokens(model, CALIBRATION, 0)
    whole = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    ours = _weights(tmp_path / "out")
    for block in model.graph.blocks:
        for stage in block.stages:
            for linear in stage:
                _prune_by_wanda(whole, linear.tensor.removesuffix(".weight"), tokens, ours)
    assert made.sparsity == 0.5


def _prune_by_wanda(
    whole: torch.nn.Module, name: str, tokens: torch.Tensor, ours: dict[str, torch.Tensor]
) -> None:
    module = whole.get_submodule(name)
    seen: list[torch.Tensor] = []
    handle = module.register_forward_pre_hook(
        lambda _module, inputs: seen.append(inputs[0].flatten(0, 1).double())
    )
    with torch.no_grad():
        whole(tokens)
    handle.remove()
    weight = whole.get_parameter(f"{name}.weight")
    score = weight.double().abs() * seen[0].square().mean(0).sqrt()
    lowest = score.argsort(dim=1)[:, : weight.shape[1] // 2]
    expected = weight.detach().clone().scatter_(1, lowest, 0.0)
    differing = int(((expected == 0) != (ours[f"{name}.weight"] == 0)).sum())
    assert differing <= 2, (
        f"{name}: {differing} weights pruned otherwise (two may swap where scores are equal to rounding)"
    )
    weight.data.copy_(ours[f"{name}.weight"])


def test_apply_replays_a_plan_byte_for_byte(tiny: Maker, tmp_path: Path) -> None:
    source = str(tiny("qwen2"))
    first = secateur.prune(
        source, tmp_path / "a", sparsity=0.4, method="sparsegpt", allocation="owl", calibration=CALIBRATION
    )
    secateur.apply(Plan.from_json((tmp_path / "a" / "plan.json").read_text()), source, tmp_path / "b")
    assert _bytes(tmp_path / "a") == _bytes(tmp_path / "b")
    assert first.plan.made_by["allocation"] == "owl"


@pytest.mark.parametrize("memory", [1 << 30, 0])
def test_an_interrupted_run_goes_on_and_gives_the_same_bytes(
    tiny: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: int
) -> None:
    source = str(tiny("llama"))
    settings = Settings(memory=memory)
    plan = secateur.plan(source, sparsity=0.5, method="sparsegpt", calibration=CALIBRATION)
    secateur.apply(plan, source, tmp_path / "whole", settings=settings)
    write = Checkpoint.write
    written: list[int] = []

    def stop_after_two(self: Checkpoint, index: int, tensors: dict[str, torch.Tensor]) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(index)
        write(self, index, tensors)

    monkeypatch.setattr(Checkpoint, "write", stop_after_two)
    with pytest.raises(KeyboardInterrupt):
        secateur.apply(plan, source, tmp_path / "out", settings=settings)
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(Checkpoint, "write", write)
    resumed = secateur.apply(plan, source, tmp_path / "out", settings=settings)
    assert resumed.resumed_blocks == 1
    assert _bytes(tmp_path / "out") == _bytes(tmp_path / "whole")


def test_kill_minus_nine_then_the_same_command_gives_the_same_bytes(tiny: Maker, tmp_path: Path) -> None:
    """One process to be killed; the command is the same in this one."""
    command = [
        "prune",
        str(tiny("llama", num_hidden_layers=12)),
        "--method",
        "sparsegpt",
        "--sparsity",
        "0.5",
    ]
    command += ["--samples", "8", "--calib-window", "128", "--quiet"]
    assert CliRunner().invoke(app, [*command, "-o", str(tmp_path / "whole")]).exit_code == 0
    start = [sys.executable, "-m", "secateur", *command, "-o", str(tmp_path / "out")]
    killed = subprocess.Popen(start, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    partial = tmp_path / "out.partial"
    while killed.poll() is None and len(list(partial.glob("model-*.safetensors"))) < 4:
        time.sleep(0.005)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert killed.returncode == -signal.SIGKILL
    assert CliRunner().invoke(app, [*command, "-o", str(tmp_path / "out")]).exit_code == 0
    assert _bytes(tmp_path / "out") == _bytes(tmp_path / "whole")
    assert not partial.exists()


def test_a_plan_for_another_model_is_refused(tiny: Maker, tmp_path: Path) -> None:
    plan = secateur.plan(str(tiny("llama")), sparsity=0.5, method="magnitude")
    with pytest.raises(PlanError, match="plan was made for"):
        secateur.apply(plan, str(tiny("qwen2")), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_calibration_text_that_changed_is_refused(tiny: Maker, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the gardener cuts the branches that bear no fruit\n" * 400)
    plan = secateur.plan(
        str(tiny("llama")),
        sparsity=0.5,
        method="wanda",
        calibration=Calibration(text=str(text), samples=2, window=64),
    )
    text.write_text("another text altogether, about something else entirely\n" * 400)
    with pytest.raises(PlanError, match="not what the plan was made with"):
        secateur.apply(plan, str(tiny("llama")), tmp_path / "out")


def test_a_folder_that_computes_something_else_is_not_kept(
    tiny: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Checkpoint.write

    def corrupt(self: Checkpoint, index: int, tensors: dict[str, torch.Tensor]) -> None:
        write(
            self,
            index,
            {name: tensor * (1.01 if "down_proj" in name else 1) for name, tensor in tensors.items()},
        )

    monkeypatch.setattr(Checkpoint, "write", corrupt)
    with pytest.raises(VerificationError, match="does not compute what was meant"):
        secateur.prune(str(tiny("llama")), tmp_path / "out", sparsity=0.5, method="magnitude")
    assert not list(tmp_path.iterdir())


def test_self_calibration_is_sampled_from_the_model_and_depends_on_the_seed(tiny: Maker) -> None:
    model = open_model(str(tiny("llama")))
    calibration = Calibration(text="self", samples=3, window=32)
    tokens = calibration_tokens(model, calibration, 0)
    assert tokens.shape == (3, 32)
    assert torch.equal(tokens, calibration_tokens(model, calibration, 0))
    assert not torch.equal(tokens, calibration_tokens(model, calibration, 1))


@pytest.mark.parametrize(
    ("fields", "needing"),
    [
        ({"sparsity": {DOWN: "0.5"}, "execution": Execution(criterion="wanda")}, "criterion wanda"),
        ({"sparsity": {DOWN: "0.5"}, "execution": Execution(weight_repair="obs")}, "weight_repair obs"),
        ({"keep": {"0.ffn": (0, 1)}, "execution": Execution(unit_repair="lsq")}, "unit_repair lsq"),
        ({"drop": ("1",), "execution": Execution(gap_repair="seam")}, "gap_repair seam"),
        ({"sparsity": {DOWN: "0.5"}, "execution": Execution(rotation="pca")}, "rotation pca"),
    ],
)
def test_a_plan_that_lacks_its_text_is_refused(
    tiny: Maker, tmp_path: Path, fields: dict[str, Any], needing: str
) -> None:
    """Nothing is learned from random tokens in its place."""
    model = str(tiny("llama"))
    plan = Plan(model=open_model(model).digest, **fields)
    with pytest.raises(PlanError, match=f"plan's {needing} needs calibration text"):
        secateur.apply(plan, model, tmp_path / "out")
    assert not list(tmp_path.iterdir())
