"""Folders without zeros: smaller, exact when reloaded, opened like any other model, refused when damaged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tests.conftest import Maker
from transformers import AutoModelForCausalLM

import secateur
from secateur.calibrate.calibration import Calibration
from secateur.core.context import RunContext, Settings
from secateur.model.formats.sparse_folder import SparseSource
from secateur.model.handle import open_model
from secateur.model.written.checkpoint import Checkpoint
from secateur.pipeline.evaluate.verify import verify
from secateur.pipeline.export.formats import exporter_named
from secateur.pipeline.export.pruned_export import execute_exported
from secateur.pipeline.export.sparse_folder import SparseExport, export_sparse
from secateur.pipeline.prune.weights.decide import Sparsity
from secateur.pipeline.quantize.quantize import Quantization
from secateur_runtime.errors import OutputError, SecateurError, SourceError, UnsupportedModelError, UsageError
from secateur_runtime.kernels.quantized import Grid

SMALL = Calibration(samples=4, window=64)
WEIGHT = "model.layers.1.mlp.down_proj.weight"


@pytest.fixture(scope="module")
def pruned(tiny: Maker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of which half of each weight is zero."""
    out = tmp_path_factory.mktemp("pruned") / "half"
    secateur.prune(
        str(tiny("llama")),
        out,
        Sparsity(sparsity="0.5", method="magnitude"),
        settings=Settings(dtype="bfloat16"),
    )
    return out


def export(src: Path, out: Path, kind: str = "sparse-bf16", **options: Any) -> SparseExport:
    return export_sparse(str(src), out, kind=kind, **options)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_bfloat16_is_smaller_and_comes_back_exactly(pruned: Path, tmp_path: Path) -> None:
    made = export(pruned, tmp_path / "out")
    # Rows of 64 and 96 columns pay for the count of each row, and those of 96 for a mask of 128.
    assert made.sparse_bytes < 0.65 * made.dense_bytes
    assert made.zeros >= 0.5
    before, after = open_model(str(pruned)), open_model(str(tmp_path / "out"))
    assert isinstance(after.source, SparseSource)
    assert after.source.sparse == {linear.tensor for linear in before.graph.linears}
    for name in before.graph.tensors:
        assert torch.equal(after.source.read(name), before.source.read(name)), name
    checked = verify(str(tmp_path / "out"), reference=str(pruned))
    assert checked.pruned == len(after.source.sparse)
    assert checked.quality is not None
    assert checked.quality.kl == pytest.approx(0, abs=1e-9)


def test_dense_puts_the_zeros_back_for_stock_transformers(pruned: Path, tmp_path: Path) -> None:
    export(pruned, tmp_path / "sparse")
    export(tmp_path / "sparse", tmp_path / "dense", "dense")
    loaded, meant = (
        AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16).state_dict()
        for path in (tmp_path / "dense", pruned)
    )
    assert all(torch.equal(loaded[name], meant[name]) for name in meant)


@pytest.mark.parametrize("family", ["qwen3", "gemma2", "phi3"])
def test_other_families_are_packed_and_verified(tiny: Maker, tmp_path: Path, family: str) -> None:
    plan = secateur.plan(str(tiny(family)), Sparsity(sparsity="2:4", method="magnitude"), calibration=SMALL)
    exporter, kind = exporter_named("sparse-int8")
    model = open_model(str(tiny(family)))
    out = tmp_path / "out"
    made = execute_exported(model, plan, out, RunContext(), exporter=exporter, kind=kind)
    assert made.facts["sparsity"] >= 0.5
    assert verify(str(out)).pruned == made.facts["sparse_weights"]
    assert not (tmp_path / "out.unpacked").exists()


@pytest.mark.parametrize(("kind", "grid"), [("sparse-int8", "int8-g32"), ("sparse-int4", "int4-g32")])
def test_codes_come_back_exactly_as_float32(pruned: Path, tmp_path: Path, kind: str, grid: str) -> None:
    made = export(pruned, tmp_path / "out", kind, group=32)
    source = open_model(str(tmp_path / "out")).source
    assert isinstance(source, SparseSource)
    assert set(source.grids.values()) == {Grid.parse(grid)}
    assert made.reload_difference <= 1e-5
    weight = open_model(str(pruned)).source.read(WEIGHT)
    assert (source.read(WEIGHT)[weight == 0] == 0).all()
    assert (source.read(WEIGHT) - weight).norm() < (0.01 if kind == "sparse-int8" else 0.15) * weight.norm()
    export(tmp_path / "out", tmp_path / "dense", "dense")
    assert torch.equal(open_model(str(tmp_path / "dense")).source.read(WEIGHT), source.read(WEIGHT))


def test_codes_of_a_quantized_model_stay(pruned: Path, tmp_path: Path) -> None:
    pytest.importorskip("compressed_tensors", reason="pip install 'secateur[quantize]'")
    secateur.quantize(str(pruned), tmp_path / "int8", Quantization(bits=8, method="rtn"), calibration=SMALL)
    export(tmp_path / "int8", tmp_path / "out", "sparse-int8")
    before, after = open_model(str(tmp_path / "int8")).source, open_model(str(tmp_path / "out")).source
    assert torch.equal(before.read(WEIGHT), after.read(WEIGHT))
    with pytest.raises(UsageError, match="quantized already on the grid int8-g32"):
        export(tmp_path / "int8", tmp_path / "no", "sparse-int4")


def test_a_model_without_zeros_is_refused(tiny: Maker, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no zeros"):
        export(tiny("llama"), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_unknown_types_and_taken_outputs_are_refused(pruned: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"did you mean sparse-int8\?"):
        export(pruned, tmp_path / "out", "sparse-int")
    export(pruned, tmp_path / "out")
    with pytest.raises(OutputError, match="exists"):
        export(pruned, tmp_path / "out")


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(
    pruned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(pruned, tmp_path / "whole", "sparse-int8")
    write, written = Checkpoint.write, list[int]()

    def dies(self: Checkpoint, index: int, tensors: Any) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(index)
        write(self, index, tensors)

    monkeypatch.setattr(Checkpoint, "write", dies)
    with pytest.raises(KeyboardInterrupt):
        export(pruned, tmp_path / "killed", "sparse-int8")
    monkeypatch.undo()
    assert export(pruned, tmp_path / "killed", "sparse-int8").resumed_blocks == 1
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def _configured(folder: Path, **changed: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] |= changed
    (folder / "config.json").write_text(json.dumps(config))


def test_other_versions_and_damaged_descriptions_are_refused(pruned: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(pruned, out)
    weights = json.loads((out / "config.json").read_text())["quantization_config"]["weights"]
    _configured(out, version=2)
    with pytest.raises(UnsupportedModelError, match="version 2"):
        open_model(str(out))
    damaged: list[Any] = [
        {},
        [],
        {**weights, WEIGHT: {"shape": [64], "stored": "bf16"}},
        {**weights, WEIGHT: {"shape": [64, 96], "stored": "int8"}},
    ]
    for bad in [*damaged, {"gone": weights[WEIGHT]}]:
        _configured(out, version=1, weights=bad)
        with pytest.raises(SourceError):
            open_model(str(out))
    _configured(out, version=1, weights={**weights, WEIGHT: {"shape": [64, 97], "stored": "bf16"}})
    with pytest.raises(SecateurError):
        open_model(str(out)).source.read(WEIGHT)


@given(st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_parts_are_an_error_or_harmless(pruned: Path, tmp_path: Path, data: st.DataObject) -> None:
    whole = tmp_path / "whole"
    if not whole.exists():
        export(pruned, whole, "sparse-int8", group=32)
    shard = next(path for path in whole.glob("model-*.safetensors") if f"{WEIGHT}_mask" in load_file(path))
    stored = load_file(shard)
    part = data.draw(st.sampled_from(["_mask", "_count", "_values", "_scale"]))
    tensor = stored[WEIGHT + part].clone()
    flat = tensor.view(torch.uint8).flatten()
    how = data.draw(st.sampled_from(["flip", "cut", "drop", "type"]))
    if how == "flip":
        flat[data.draw(st.integers(0, len(flat) - 1))] ^= data.draw(st.integers(1, 255))
    elif how == "cut":
        tensor = tensor[: data.draw(st.integers(0, len(tensor) - 1))]
    damaged = {**stored, WEIGHT + part: tensor.float() if how == "type" else tensor}
    if how == "drop":
        del damaged[WEIGHT + part]
    bad = tmp_path / "bad"
    shutil.rmtree(bad, ignore_errors=True)
    shutil.copytree(whole, bad)
    save_file(damaged, bad / shard.name, metadata={"format": "pt"})
    try:
        source = open_model(str(bad)).source
        assert isinstance(source, SparseSource)
        packed = source.packed(WEIGHT)
    except SecateurError as error:
        assert "\n" not in str(error)
        return
    # Another value or finite scale is not damage that a format can see, nor is a mask that keeps as many
    # others; digests are there for these.
    assert how == "flip"
    assert part != "_count"
    assert packed.dense().shape == source.tensors[WEIGHT].shape
