"""Plug-ins that pip installed, used by name through the command in another process."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.cli.command import SMALL
from tests.conftest import Maker
from tests.ladders import EXAMPLE
from tests.plugins import install_plugin, run_secateur
from torch import Tensor

from secateur.model.handle import open_model
from secateur_runtime.ladder import Rung

CRITERION = """
from secateur.criteria import criterion


@criterion("small-first", scope="row", paper="mine")
def small_first(weight, stats):
    '''Return the larger, the smaller the weight.'''
    return 1 / (1 + weight.abs())
"""
QUANTIZER = """
from secateur.quantizers import quantizer
from secateur.quantizers.rtn import plainly


@quantizer("eight")
def eight(weight, stats, grid):
    '''Round to the usual grid of 8 bits.'''
    return plainly(weight, 8)
"""
POLICY = """
from secateur_runtime.policies import policy


@policy("everything", levels=True)
def everything(choices, file):
    '''Remove everything that the ladder can.'''
    return lambda seen: choices.level(len(choices.units), seen)
"""
RECOVERY = """
from secateur.pipeline.recover.methods import recovery
from secateur.train.learner import named_weights


@recovery("norms", rate=1e-2)
def norms(student):
    '''Norms alone.'''
    return named_weights(student.model, {}, [name for name in student.graph.tensors if "norm" in name])
"""
PRUNING = """
from dataclasses import dataclass, replace

from secateur.core.plan import Plan
from secateur.pipeline.prune.kinds import pruning
from secateur_runtime.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    '''How many of the last blocks go.'''

    drop_layers: int = 0
    target: str | None = None

    def check(self):
        '''Raise UsageError where nothing would go.'''
        if self.drop_layers < 1:
            raise UsageError("say how many blocks go: --drop-layers 1")


def shorter(goal, size, graph):
    return replace(size, inside=size.inside * (1 - goal.drop_layers / len(graph.blocks)))


@pruning("tail", goal=Tail, estimate=shorter, passes=1.0)
def tail(model, goal, calibration, context):
    '''Drop the last blocks.'''
    blocks = model.graph.blocks[len(model.graph.blocks) - goal.drop_layers :]
    drop = tuple(str(block.index) for block in blocks)
    return Plan(model=model.digest, drop=drop, made_by={"depth_of": "the tail", "seed": str(context.seed)})
"""
RECIPE = """
model: {model}
stages:
  - prune: {{method: tail, drop_layers: 1}}
"""
DEVICE = """
name = "a machine made up"
kind = "laptop"
processor = "cpu"
sparse_tensor_cores = false
moving_memory = true
[isa]
names = ["avx2"]
source = "made up"
confirmed = false
[figures]
cores = {value = 4.0, source = "made up", confirmed = false}
memory = {value = 8.0e9, source = "made up", confirmed = false}
stream = {value = 2.0e10, source = "made up", confirmed = false}
matrix = {value = 1.0e11, source = "made up", confirmed = false}
"""
LIST = "from secateur.criteria import CRITERIA; print(*CRITERIA)"
PRUNE = ("--sparsity", "0.5", *SMALL)


def json_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    body: dict[str, Any] = json.loads(done.stdout)
    return body


def weights_of(folder: Path) -> dict[str, Tensor]:
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


@pytest.fixture(scope="module")
def criterion(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of an installed criterion."""
    return install_plugin(tmp_path_factory.mktemp("plugin"), "small-first", "secateur.criteria", CRITERION)


class TestCriterion:
    def test_is_there_where_it_is_installed_and_nowhere_else(self, criterion: dict[str, str]) -> None:
        for found, env in ((True, criterion), (False, None)):
            done = subprocess.run(
                [sys.executable, "-c", LIST], env=env, capture_output=True, text=True, check=True
            )
            assert ("small-first" in done.stdout.split()) is found

    @pytest.mark.parametrize(
        "options", [("--method", "small-first"), ("--method", "wanda", "--criterion", "small-first")]
    )
    def test_prunes_what_its_formula_says(
        self, criterion: dict[str, str], tiny: Maker, tmp_path: Path, options: tuple[str, ...]
    ) -> None:
        out = tmp_path / "out"
        done = run_secateur(criterion, "prune", tiny("llama"), "-o", out, *options, *PRUNE, "--json")
        assert json_of(done)["criterion"] == "small-first"
        dense, pruned = weights_of(tiny("llama")), weights_of(out)
        for linear in open_model(str(tiny("llama"))).graph.linears:
            size, kept = dense[linear.tensor].abs(), pruned[linear.tensor] != 0
            assert torch.equal(kept.sum(1), torch.full((len(size),), linear.in_features // 2))
            assert bool((size.where(kept, 0.0).amax(1) <= size.where(~kept, torch.inf).amin(1)).all())

    def test_is_in_help_and_in_errors(self, criterion: dict[str, str], tiny: Maker, tmp_path: Path) -> None:
        shown = "".join(run_secateur(criterion, "prune", "--help").stdout.split())
        assert shown.count("small-first") == 2
        wrong = ("--method", "smal-first", *PRUNE)
        done = run_secateur(criterion, "prune", tiny("llama"), "-o", tmp_path / "no", *wrong)
        assert done.returncode == 2
        assert "did you mean small-first?" in done.stderr


def test_quantizer(tiny: Maker, tmp_path: Path) -> None:
    pytest.importorskip("compressed_tensors")
    environment = install_plugin(tmp_path / "plugin", "eight", "secateur.quantizers", QUANTIZER)
    options = ("--method", "eight", "--bits", "8", *SMALL)
    done = run_secateur(environment, "quantize", tiny("llama"), "-o", tmp_path / "out", *options, "--json")
    assert json_of(done)["method"] == "eight"


def test_policy(tmp_path: Path) -> None:
    def sized(rung: Rung) -> Rung:
        return replace(rung, weight_bytes=rung.weight_bytes * 10_000)

    environment = install_plugin(tmp_path / "plugin", "everything", "secateur.policies", POLICY)
    ladder = replace(EXAMPLE, whole=sized(EXAMPLE.whole), rungs=tuple(map(sized, EXAMPLE.rungs)))
    ladder.save(tmp_path / "ladder.json")
    (tmp_path / "device.toml").write_text(DEVICE)
    options = ("--requests", 8, "--device", tmp_path / "device.toml", "--json")
    done = run_secateur(environment, "adapt", "simulate", tmp_path / "ladder.json", *options)
    figures = json_of(done)["policies"]
    assert list(figures) == ["cost-aware", "everything", "greedy", "knapsack", "none", "threshold", "static"]
    assert figures["everything"]["loss"] == pytest.approx(EXAMPLE.rungs[-1].loss)
    assert figures["everything"]["changes"] <= 1
    assert "everything" in run_secateur(environment, "serve", "--help").stdout


def test_recovery_method(tiny: Maker, tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    environment = install_plugin(tmp_path / "plugin", "norms", "secateur.recoveries", RECOVERY)
    teacher, student, out = tiny("llama"), tmp_path / "student", tmp_path / "out"
    made = run_secateur(environment, "prune", teacher, "-o", student, "--method", "magnitude", *PRUNE)
    assert made.returncode == 0, made.stderr
    steps = ("--steps", 16, "--batch", 192, "--samples", 24, "--calib-window", 64)
    options = ("-o", out, "--teacher", teacher, *steps, "--method", "norms", "--json")
    body = json_of(run_secateur(environment, "recover", student, *options))
    assert body["method"] == "norms"
    assert body["kl_after"] < body["kl_before"]
    before, after = weights_of(student), weights_of(out)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all("norm" in name for name in changed)
    refused = run_secateur(environment, "recover", student, *options, "--rank", 4)
    assert refused.returncode == 2
    assert "--rank belongs to --method lora, not to norms" in refused.stderr


BROKEN = {
    "raises": ("raise RuntimeError('no\\nluck')", "cannot be imported (RuntimeError: no luck)"),
    "twice": (CRITERION.replace("small-first", "wanda"), "criterion 'wanda' is registered twice"),
    "promises": ("x = 1", "has no criterion 'promises', which its entry point in secateur.criteria promises"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_one_that_cannot_be_used_is_one_line(tiny: Maker, tmp_path: Path, name: str) -> None:
    source, message = BROKEN[name]
    environment = install_plugin(tmp_path / "plugin", name, "secateur.criteria", source)
    done = run_secateur(
        environment, "prune", tiny("llama"), "-o", tmp_path / "out", "--method", "wanda", *PRUNE
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert f"secateur-plugin-{name}" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert run_secateur(environment, "prune", "--help").returncode == 0


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of an installed kind of pruning."""
    return install_plugin(tmp_path_factory.mktemp("plugin"), "tail", "secateur.prunings", PRUNING)


class TestPruning:
    def test_prunes_what_it_decides(self, installed: dict[str, str], tiny: Maker, tmp_path: Path) -> None:
        """Exit code 0 says that the folder was reloaded and computes what was meant."""
        options = ("--method", "tail", "--drop-layers", "1", "--json")
        done = run_secateur(installed, "prune", tiny("llama"), "-o", tmp_path / "out", *options)
        assert json_of(done)["dropped"] == "2"
        dense, pruned = weights_of(tiny("llama")), weights_of(tmp_path / "out")
        assert pruned.keys() == {name for name in dense if not name.startswith("model.layers.2.")}
        assert all(torch.equal(pruned[name], dense[name]) for name in pruned)
        assert "depth_of: the tail" in (tmp_path / "out" / "README.md").read_text()

    def test_is_in_recipes_and_in_comparisons(
        self, installed: dict[str, str], tiny: Maker, tmp_path: Path
    ) -> None:
        (tmp_path / "recipe.yaml").write_text(RECIPE.format(model=tiny("llama")))
        done = run_secateur(
            installed, "run", tmp_path / "recipe.yaml", "-o", tmp_path / "out", "--dry-run", "--json"
        )
        whole = sum(tensor.numel() for tensor in weights_of(tiny("llama")).values())
        (stage,) = json.loads(done.stdout)
        assert stage["stage"] == "prune"
        assert stage["bytes"] < 2 * whole
        code = "from secateur.pipeline.compare.rows import every_method; print(*every_method())"
        shown = subprocess.run(
            [sys.executable, "-c", code], env=installed, capture_output=True, text=True, check=True
        )
        assert "tail" in shown.stdout.split()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (("--method", "tail"), "say how many blocks go: --drop-layers 1"),
            (("--method", "tail", "--ratio", "0.5"), "--ratio belongs to pruning --method depth and"),
            (("--method", "tial", "--sparsity", "0.5"), "unknown method 'tial'"),
        ],
    )
    def test_wrong_options_are_one_line(
        self, installed: dict[str, str], tiny: Maker, tmp_path: Path, options: tuple[str, ...], message: str
    ) -> None:
        done = run_secateur(installed, "prune", tiny("llama"), "-o", tmp_path / "out", *options)
        assert done.returncode == 2
        assert message in done.stderr
        assert done.stderr.count("\n") == 1
        assert not list(tmp_path.iterdir())
