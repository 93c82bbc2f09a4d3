"""What `verify` checks, and that it checks it however the model was named."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.conftest import Maker

from secateur.core.folder_files import MANIFEST
from secateur.model.handle import open_model
from secateur.model.written.checkpoint import file_digest
from secateur.pipeline.evaluate.verify import verify
from secateur.pipeline.quantize.quantize import Quantization, quantize
from secateur_runtime.errors import ExitCode, MissingCheckerError, SourceError, UsageError, VerificationError

LINEAR = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture
def folder(tiny: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model in the home directory with a manifest, and a plan that one linear fulfils."""
    home = tmp_path / "home"
    model = home / "model"
    shutil.copytree(tiny("llama"), model)
    monkeypatch.setenv("HOME", str(home))
    _change(model, lambda weight: weight.view(-1, 2).index_fill_(1, torch.tensor([0]), 0).view_as(weight))
    opened = open_model(str(model))
    plan = {"version": 1, "model": opened.digest, "sparsity": {LINEAR: "0.50"}}
    (model / "plan.json").write_text(json.dumps(plan))
    shards = {path.name: file_digest(path) for path in model.glob("*.safetensors")}
    (model / MANIFEST).write_text(json.dumps({"shards": shards}))
    return model


def _change(model: Path, change: object) -> None:
    """Write the one shard of a model with `LINEAR` changed."""
    (shard,) = model.glob("*.safetensors")
    tensors = load_file(shard)
    assert callable(change)
    tensors[LINEAR] = change(tensors[LINEAR].clone()).contiguous()
    save_file(tensors, shard, metadata={"format": "pt"})


def _forget_digests(model: Path) -> None:
    (model / MANIFEST).unlink()


@pytest.mark.parametrize("ref", ["~/model", None])
def test_everything_is_checked_under_either_name(folder: Path, ref: str | None) -> None:
    found = verify(ref or str(folder))
    assert (found.shards, found.pruned) == (1, 1)
    assert found.tensors == len(open_model(str(folder)).graph.tensors)
    assert found.stock_difference < 1e-5
    assert found.quality is None


@pytest.mark.parametrize("ref", ["~/model", None])
def test_a_changed_shard_is_found_under_either_name(folder: Path, ref: str | None) -> None:
    _change(folder, lambda weight: weight * 1.01)
    with pytest.raises(VerificationError, match="was changed after it was written"):
        verify(ref or str(folder))


def test_a_lost_mask_is_found(folder: Path) -> None:
    _forget_digests(folder)
    _change(folder, lambda weight: weight + 1)
    with pytest.raises(VerificationError, match=f"{LINEAR} does not have the sparsity 0.50"):
        verify(str(folder))


def test_weights_that_are_not_finite_are_found(folder: Path) -> None:
    _forget_digests(folder)
    _change(folder, lambda weight: weight.index_fill(0, torch.tensor([3]), float("nan")))
    with pytest.raises(VerificationError, match=f"{LINEAR} holds NaN or infinite weights"):
        verify(str(folder))


def test_a_plan_of_other_tensors_is_found(folder: Path) -> None:
    plan = json.loads((folder / "plan.json").read_text())
    plan["sparsity"] = {"model.layers.9.mlp.up_proj.weight": "0.50"}
    (folder / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(VerificationError, match=r"which .* does not have"):
        verify(str(folder))


def test_a_damaged_manifest_is_one_line(folder: Path) -> None:
    (folder / MANIFEST).write_text("{")
    with pytest.raises(SourceError, match=r"is damaged .*; write the model again") as caught:
        verify(str(folder))
    assert "\n" not in str(caught.value)


def test_a_reference_is_compared(folder: Path, tiny: Maker) -> None:
    same = verify(str(folder), reference=str(folder)).quality
    assert same is not None
    assert same.kl == pytest.approx(0, abs=1e-6)
    other = verify(str(folder), reference=str(tiny("llama"))).quality
    assert other is not None
    assert other.kl is not None
    assert other.kl > 1e-6
    with pytest.raises(UsageError, match="has another vocabulary"):
        verify(str(folder), reference=str(tiny("llama", vocab_size=512)))


def test_weights_that_need_a_missing_package_cannot_be_checked(
    tiny: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantize(str(tiny("llama")), tmp_path / "out", Quantization(method="rtn"))
    monkeypatch.setitem(sys.modules, "compressed_tensors.compressors.pack_quantized.helpers", None)
    with pytest.raises(MissingCheckerError, match=r"out cannot be checked: .*pip install") as caught:
        verify(str(tmp_path / "out"))
    assert caught.value.exit_code == ExitCode.UNCHECKED
