"""Scales of a quantized model.

Nearer to the teacher, codes as they were, resumed exactly, and what is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import Maker
from tests.pipeline.recover.test_distill import _Killed, _recover
from tests.pipeline.recover.test_local_reconstruction import EXACT, PRUNING, TEXT, _bytes, _divergence

import secateur
from secateur.calibrate.calibration import calibration_tokens
from secateur.model.formats.compressed_tensors import PackedSource
from secateur.model.handle import open_model
from secateur.pipeline.evaluate.verify import verify
from secateur.pipeline.prune.prune import prune
from secateur.pipeline.quantize.quantize import Quantization, quantize
from secateur.pipeline.recover.distill import Distill
from secateur.pipeline.recover.local_reconstruction import Local
from secateur.train.trainer import Trainer
from secateur_runtime.errors import UsageError

CRUDE = Quantization(bits=3, group=16, method="rtn")
HOW: dict[str, Any] = {"trains": "scales", "rate": 1e-2}


def _source(folder: Path) -> PackedSource:
    source = open_model(str(folder)).source
    assert isinstance(source, PackedSource)
    return source


@pytest.fixture
def student(tiny: Maker, tmp_path: Path) -> Path:
    quantize(str(tiny("llama")), tmp_path / "student", CRUDE, calibration=PRUNING, settings=EXACT)
    return tmp_path / "student"


@pytest.mark.parametrize("symmetric", [True, False])
def test_scales_come_nearer_to_the_teacher_and_codes_stay(
    tiny: Maker, tmp_path: Path, *, symmetric: bool
) -> None:
    prune(
        str(tiny("llama")),
        tmp_path / "pruned",
        sparsity=0.5,
        method="wanda",
        calibration=PRUNING,
        settings=EXACT,
    )
    crude = Quantization(bits=3, group=16, method="rtn", symmetric=symmetric)
    quantize(str(tmp_path / "pruned"), tmp_path / "student", crude, calibration=PRUNING, settings=EXACT)
    made = _recover(tmp_path / "student", tiny("llama"), tmp_path / "out", **HOW)
    assert made.changed
    assert made.bytes == pytest.approx(
        sum(path.stat().st_size for path in (tmp_path / "student").glob("*.safetensors")), rel=1e-3
    )
    before, after = _source(tmp_path / "student"), _source(tmp_path / "out")
    moved = 0
    for name, grid in before.grids.items():
        old, new = before.codes(name), after.codes(name)
        assert after.grids[name] == grid
        assert torch.equal(old.values, new.values)
        assert old.zeros is None or (new.zeros is not None and torch.equal(old.zeros, new.zeros))
        assert torch.equal(old.dense() == 0, new.dense() == 0)
        moved += not torch.equal(old.scales, new.scales)
    assert moved
    assert all(
        torch.equal(before.read(name), after.read(name))
        for name in before.tensors
        if name not in before.grids
    )
    held = calibration_tokens(open_model(str(tiny("llama"))), TEXT, 0)[-3:]
    found = [_divergence(tmp_path / name, tiny("llama"), held) for name in ("student", "out")]
    assert found[1] < found[0]
    assert [made.before.kl, made.after.kl] == pytest.approx(found, rel=1e-3)
    verify(str(tmp_path / "out"))


def test_a_killed_run_goes_on_and_gives_the_same_bytes(
    tiny: Maker, student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _recover(student, tiny("llama"), tmp_path / "whole", **HOW)
    step, done = Trainer._step, list[int]()

    def counted(self: Trainer, *given: Any) -> bool:
        if len(done) == 7:
            raise _Killed
        done.append(1)
        return step(self, *given)

    monkeypatch.setattr(Trainer, "_step", counted)
    with pytest.raises(_Killed):
        _recover(student, tiny("llama"), tmp_path / "out", **HOW)
    monkeypatch.undo()
    _recover(student, tiny("llama"), tmp_path / "out", **HOW)
    assert _bytes(tmp_path / "out") == _bytes(tmp_path / "whole")


def test_what_trains_to_nothing_leaves_the_codes_and_scales_as_they_were(
    tiny: Maker, student: Path, tmp_path: Path
) -> None:
    made = _recover(student, tiny("llama"), tmp_path / "out", trains="scales", rate=30.0)
    assert made.changed == 0
    before, after = _source(student), _source(tmp_path / "out")
    assert all(torch.equal(before.codes(name).scales, after.codes(name).scales) for name in before.grids)


def test_only_scales_of_a_quantized_model_are_trained_and_only_there(
    tiny: Maker, student: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="is not quantized so: quantize it first"):
        _recover(tiny("llama"), tiny("llama"), tmp_path / "out", trains="scales")
    ways: tuple[Local | Distill, ...] = (Local(), Distill(trains="lora"))
    for how in ways:
        with pytest.raises(UsageError, match="--method scales is the one that keeps it so"):
            secateur.recover(
                str(student), tmp_path / "out", how, teacher=str(tiny("llama")), calibration=TEXT
            )
    assert not (tmp_path / "out.partial").exists()
