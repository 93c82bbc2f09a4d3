"""Which sub-blocks of a teacher each sub-block of its student stands for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from tests.conftest import Maker

from secateur.calibrate.calibration import Calibration
from secateur.core.context import Settings
from secateur.core.plan import Plan
from secateur.model.handle import open_model
from secateur.pipeline.prune.apply import apply
from secateur.pipeline.prune.prune import prune
from secateur.pipeline.recover.layer_mapping import pair
from secateur.pipeline.recover.local_reconstruction import Local
from secateur.pipeline.recover.recover import recover
from secateur.pipeline.recover.training_run import Recovered
from secateur_runtime.errors import PlanError, UsageError

PRUNING = Calibration(samples=8, window=48)


TEXT = Calibration(samples=24, window=48)


EXACT = Settings(dtype="float32", arithmetic="float32")


DEEP = {"num_hidden_layers": 6}


SHORT = Local(steps=30, batch=96, rate=0.02, dense=1.0)


def _recover(
    student: Path, teacher: Path, out: Path, how: Local = SHORT, settings: Settings = EXACT
) -> Recovered:
    return recover(str(student), out, how, teacher=str(teacher), calibration=TEXT, settings=settings)


@pytest.fixture
def student(tiny: Maker, tmp_path: Path) -> Path:
    prune(str(tiny("llama")), tmp_path / "student", sparsity=0.5, method="wanda", calibration=PRUNING)
    return tmp_path / "student"


def _other_vocabulary(tiny: Maker, student: Path, tmp_path: Path) -> Path:
    teacher = Path(shutil.copytree(tiny("llama"), tmp_path / "other"))
    body = json.loads((teacher / "tokenizer.json").read_text())
    vocabulary = body["model"]["vocab"]
    first, second = list(vocabulary)[300:302]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (teacher / "tokenizer.json").write_text(json.dumps(body))
    return teacher


def _other_family(tiny: Maker, student: Path, tmp_path: Path) -> Path:
    return tiny("qwen3")


def _deeper(tiny: Maker, student: Path, tmp_path: Path) -> Path:
    return tiny("llama", **DEEP)


def _wider(tiny: Maker, student: Path, tmp_path: Path) -> Path:
    return tiny("llama", hidden_size=128)


def _denser(tiny: Maker, student: Path, tmp_path: Path) -> Path:
    shard = student / "model-00002-of-00004.safetensors"
    tensors = load_file(shard)
    tensors["model.layers.0.mlp.up_proj.weight"].add_(1)
    save_file(tensors, shard, metadata={"format": "pt"})
    return tiny("llama")


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (_other_vocabulary, UsageError, "different tokenizers"),
        (_other_family, UsageError, "a llama model and .* a qwen3 model"),
        (_deeper, UsageError, "has 3 blocks, .* 6, and no plan.json made from it says which are left"),
        (_wider, UsageError, "channels"),
        (
            _denser,
            PlanError,
            "model.layers.0.mlp.up_proj.weight of .* does not have the sparsity 0.5 of its plan.json",
        ),
    ],
)
def test_models_that_are_not_teacher_and_student(
    tiny: Maker, student: Path, tmp_path: Path, spoil: Any, error: type[Exception], message: str
) -> None:
    teacher = spoil(tiny, student, tmp_path)
    with pytest.raises(error, match=message):
        _recover(student, teacher, tmp_path / "out")
    assert not (tmp_path / "out.partial").exists()


def test_each_half_stands_for_its_own_and_for_what_was_dropped_behind_it(tiny: Maker, tmp_path: Path) -> None:
    teacher = open_model(str(tiny("llama", **DEEP)))
    plan = Plan(model=teacher.digest, drop=("1.attn", "2", "4.ffn"))
    apply(plan, str(tiny("llama", **DEEP)), tmp_path / "student", settings=EXACT)
    halves = pair(open_model(str(tmp_path / "student")), teacher, plan).sub_blocks
    assert halves[0, "ffn"] == ((0, "ffn"), (1, "attn"))
    assert halves[1, "ffn"] == ((1, "ffn"), (2, "attn"), (2, "ffn"))
    assert halves[3, "attn"] == ((4, "attn"), (4, "ffn"))
    assert (1, "attn") not in halves
    assert halves[4, "ffn"] == ((5, "ffn"),)
