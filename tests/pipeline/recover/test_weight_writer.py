"""A folder of which some weights changed: the others and the codes stay, and a start is put back whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.conftest import Maker

import secateur
from secateur.calibrate.calibration import Calibration
from secateur.core.plan import Plan
from secateur.model.handle import open_model
from secateur.model.written.checkpoint import Checkpoint
from secateur.pipeline.quantize.quantize import Quantization
from secateur.pipeline.recover.weight_writer import Rewrite

NAME = "model.layers.1.mlp.up_proj.weight"


def _started(folder: Path, tmp_path: Path, dtype: torch.dtype = torch.float32) -> Rewrite:
    student = open_model(str(folder))
    checkpoint = Checkpoint(tmp_path / "out", len(student.graph.blocks) + 1)
    checkpoint.partial.mkdir()
    return Rewrite(student, checkpoint, dtype)


def test_what_changed_is_written_and_counted_and_put_back(tiny: Maker, tmp_path: Path) -> None:
    student = open_model(str(tiny("llama")))
    rewrite = _started(tiny("llama"), tmp_path)
    new = student.source.read(NAME) + 1
    for shard in range(4):
        assert rewrite.finished == shard
        rewrite.write(shard, {NAME: new})
    assert torch.equal(rewrite.read(2)[NAME], new)
    assert torch.equal(rewrite.meant(NAME, {NAME: new}), new)
    others = {name for shard in range(4) for name in rewrite.read(shard)} - {NAME}
    assert others == set(student.graph.tensors) - {NAME}
    assert rewrite.changed() == 1
    assert not rewrite.reverting
    rewrite.revert()
    assert rewrite.reverting
    assert rewrite.changed() == 0
    assert torch.equal(rewrite.read(2)[NAME], student.source.read(NAME))


def test_a_finished_folder_opens_with_its_plan_and_provenance(tiny: Maker, tmp_path: Path) -> None:
    student = open_model(str(tiny("llama")))
    rewrite = _started(tiny("llama"), tmp_path, torch.bfloat16)
    new = student.source.read(NAME) * 2
    for shard in range(4):
        rewrite.write(shard, {NAME: new})
    plan = Plan(model=student.digest, sparsity={NAME: "0.50"})
    rewrite.finish(student, {"method": "local"}, plan)
    made = open_model(str(rewrite.folder))
    assert made.source.config["dtype"] == "bfloat16"
    assert torch.equal(made.source.read(NAME), new.bfloat16().float())
    assert (rewrite.folder / "plan.json").read_text() == plan.to_json()
    noted = json.loads((rewrite.folder / "secateur.json").read_text())
    assert (noted["plan"], noted["teacher"]) == (plan.digest(), student.digest)
    assert noted["recovery"] == {"method": "local"}


def test_codes_of_a_quantized_student_stay_and_scales_change(tiny: Maker, tmp_path: Path) -> None:
    pytest.importorskip("compressed_tensors", reason="pip install 'secateur[quantize]'")
    secateur.quantize(
        str(tiny("llama")),
        tmp_path / "student",
        Quantization(method="rtn"),
        calibration=Calibration(samples=2, window=32),
    )
    rewrite = _started(tmp_path / "student", tmp_path)
    codes = rewrite.codes(NAME, {})
    assert codes is not None
    scales = codes.scales * 1.5
    rewrite.write(2, {NAME: scales})
    (shard,) = rewrite.folder.glob("*.safetensors")
    written = load_file(shard)
    before = load_file(next((tmp_path / "student").glob("model-00003*.safetensors")))
    stem = NAME.removesuffix("weight")
    assert torch.equal(written[f"{stem}weight_packed"], before[f"{stem}weight_packed"])
    torch.testing.assert_close(
        written[f"{stem}weight_scale"].float(),
        before[f"{stem}weight_scale"].float() * 1.5,
        rtol=1e-3,
        atol=1e-4,
    )
    torch.testing.assert_close(rewrite.meant(NAME, {NAME: scales}), codes.dense() * 1.5, rtol=1e-3, atol=1e-3)
    assert rewrite.codes("model.norm.weight", {}) is None
