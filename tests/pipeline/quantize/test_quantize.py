"""Quantized models: runtimes load what was meant, masks survive, a killed run ends with equal bytes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.conftest import Maker
from tests.killed import killed_at
from tests.pipeline.quantize.quantized import SMALL, contents, packed, quantize
from tests.tiny_models import FAMILIES
from tests.uneven import save_uneven, widths

import secateur
from secateur.core.pattern import Pattern
from secateur.model.formats.compressed_tensors import PackedSource
from secateur.model.handle import open_model
from secateur.pipeline.evaluate.verify import verify
from secateur.pipeline.export.gguf import export
from secateur.pipeline.quantize.quantize import Quantization
from secateur_runtime.errors import PlanError, SecateurError, UsageError, VerificationError
from secateur_runtime.kernels.quantized import Grid

pytest.importorskip("compressed_tensors", reason="pip install 'secateur[quantize]'")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_reloads_in_stock_transformers(tiny: Maker, tmp_path: Path, family: str) -> None:
    made = quantize(tiny(family), tmp_path / "out")
    assert made.bits_per_weight == 4.5
    assert made.reload_difference <= 1e-5
    assert verify(str(tmp_path / "out")).stock_difference <= 1e-5
    assert set(packed(tmp_path / "out").grids.values()) == {Grid(bits=4, group=32)}
    assert made.bytes < sum(path.stat().st_size for path in tiny(family).glob("*.safetensors"))


@pytest.mark.parametrize(
    "name", ["int4-g32", "int4a-g32", "int3-g32", "int3a-g32", "int5-g32", "int5a-g32", "int8-g32"]
)
def test_every_grid_reloads_and_goes_to_gguf_as_it_is(tiny: Maker, tmp_path: Path, name: str) -> None:
    pytest.importorskip("xllamacpp", reason="pip install 'secateur[llamacpp]'")
    grid = Grid.parse(name)
    made = quantize(
        tiny("llama"),
        tmp_path / "out",
        Quantization(bits=grid.bits, symmetric=grid.symmetric, method="imatrix"),
    )
    assert dict(made.grids) == {
        name: sum(
            linear.out_features * linear.in_features
            for linear in open_model(str(tiny("llama"))).graph.linears
        )
    }
    assert verify(str(tmp_path / "out")).stock_difference <= 1e-5
    done = export(str(tmp_path / "out"), tmp_path / "out.gguf")
    assert done.type == "packed"
    assert done.kl is not None
    ours, theirs = packed(tmp_path / "out"), open_model(str(done.out)).source
    for tensor in ours.grids:
        assert torch.equal(ours.read(tensor), theirs.read(tensor)), tensor


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_blocks_of_unequal_width(tiny: Maker, tmp_path: Path, family: str) -> None:
    head_dim = 32 if family == "qwen3" else 16
    shapes = widths([(4, 2, 96), (2, 1, 64), (4, 2, 0), (0, 0, 32)], head_dim)
    whole = save_uneven(tiny(family), tmp_path / "uneven", shapes)
    made = quantize(whole, tmp_path / "out")
    assert made.reload_difference <= 1e-5
    assert verify(str(tmp_path / "out")).stock_difference <= 1e-5
    pytest.importorskip("xllamacpp", reason="pip install 'secateur[llamacpp]'")
    done = export(str(tmp_path / "out"), tmp_path / "out.gguf")
    assert done.arch == {"llama": "deci", "qwen3": "openelm"}[family]


@pytest.mark.parametrize("pattern", ["2:4", "0.6"])
@pytest.mark.parametrize("method", ["gptq", "rtn"])
def test_masks_survive(tiny: Maker, tmp_path: Path, pattern: str, method: str) -> None:
    pruned = secateur.prune(
        str(tiny("llama")), tmp_path / "pruned", sparsity=pattern, method="wanda", calibration=SMALL
    )
    made = quantize(tmp_path / "pruned", tmp_path / "out", Quantization(method=method, symmetric=False))
    assert made.sparsity >= pruned.sparsity
    assert verify(str(tmp_path / "out")).pruned == len(pruned.plan.sparsity)
    sparse, source = open_model(str(tmp_path / "pruned")).source, packed(tmp_path / "out")
    for name in source.grids:
        assert bool((source.read(name)[sparse.read(name) == 0] == 0).all())
    assert Pattern.parse(pattern).ratio - 0.01 < made.sparsity < 0.9


@pytest.mark.parametrize("pattern", ["2:4", "0.6"])
def test_pruned_and_rounded_in_one_pass(tiny: Maker, tmp_path: Path, pattern: str) -> None:
    """The folder keeps its zeros, continues after a kill, and loses less than pruning, then rounding."""
    dense = str(tiny("llama"))
    made = quantize(tiny("llama"), tmp_path / "once", Quantization(sparsity=pattern))
    wanted = Pattern.parse(pattern)
    assert made.sparsity >= wanted.ratio - 1e-3
    assert verify(str(tmp_path / "once")).pruned == len(packed(tmp_path / "once").grids)
    secateur.prune(dense, tmp_path / "pruned", sparsity=pattern, method="sparsegpt", calibration=SMALL)
    quantize(tmp_path / "pruned", tmp_path / "after")
    assert verify(str(tmp_path / "after")).pruned == len(packed(tmp_path / "after").grids)
    kls = {
        name: secateur.evaluate(str(tmp_path / name), window=64, count=8, reference=dense).kl or 0.0
        for name in ("once", "after")
    }
    assert 0 < kls["once"] < kls["after"]


def test_zeros_that_are_not_those_of_the_plan(tiny: Maker, tmp_path: Path) -> None:
    secateur.prune(str(tiny("llama")), tmp_path / "pruned", sparsity="2:4", method="wanda", calibration=SMALL)
    with pytest.raises(
        UsageError, match="is pruned already, and what is zero stays zero: leave out --sparsity"
    ):
        quantize(tmp_path / "pruned", tmp_path / "out", Quantization(sparsity="0.5"))
    shard = tmp_path / "pruned" / "model-00002-of-00004.safetensors"
    name = "model.layers.0.mlp.up_proj.weight"
    weights = load_file(shard)
    weights[name][0, :4] = 1.0
    save_file(weights, shard, metadata={"format": "pt"})
    with pytest.raises(
        PlanError,
        match=(
            r"model\.layers\.0\.mlp\.up_proj\.weight of .* does not have the sparsity 2:4 of its plan\.json"
        ),
    ):
        quantize(tmp_path / "pruned", tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"pruned"}


def test_gptq_is_nearer_to_the_model_than_rounding(tiny: Maker, tmp_path: Path) -> None:
    kls = {}
    for method in ("rtn", "imatrix", "gptq"):
        quantize(tiny("llama"), tmp_path / method, Quantization(bits=3, method=method))
        kls[method] = (
            secateur.evaluate(str(tmp_path / method), window=64, count=4, reference=str(tiny("llama"))).kl
            or 0.0
        )
    assert 0 < kls["gptq"] < kls["imatrix"] < kls["rtn"]


def test_what_is_protected_stays_as_it_is(tiny: Maker, tmp_path: Path) -> None:
    quantize(tiny("llama"), tmp_path / "out", Quantization(protect=("first=1", "*.down_proj.weight")))
    source, whole = packed(tmp_path / "out"), open_model(str(tiny("llama"))).source
    assert len(source.grids) == 2 * 6
    for name in ("model.layers.0.self_attn.q_proj.weight", "model.layers.2.mlp.down_proj.weight"):
        assert torch.equal(source.read(name), whole.read(name))
    assert verify(str(tmp_path / "out")).stock_difference <= 1e-5


def test_a_run_that_stopped_goes_on(tiny: Maker, tmp_path: Path) -> None:
    quantize(tiny("llama"), tmp_path / "whole")
    with killed_at(2):
        quantize(tiny("llama"), tmp_path / "out")
    with pytest.raises(SecateurError, match="unfinished run with other settings"):
        quantize(tiny("llama"), tmp_path / "out", Quantization(bits=3))
    assert quantize(tiny("llama"), tmp_path / "out").resumed_blocks == 1
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_folder_that_computes_something_else_is_not_kept(
    tiny: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = PackedSource.read
    monkeypatch.setattr(PackedSource, "read", lambda self, name: read(self, name) * 1.01)
    with pytest.raises(VerificationError, match="does not compute what was meant"):
        quantize(tiny("llama"), tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (Quantization(group=48), "which is not a multiple of the group of 48: choose another --group"),
        (Quantization(bits=9), "9 bits: a quanti[sz]ed weight has 2 to 8"),
        (Quantization(method="gtpq"), r"unknown quantization method 'gtpq' \(did you mean gptq\?\)"),
        (Quantization(protect=("*",)), "--protect leaves nothing to quantize"),
        (
            Quantization(sparsity="0.5", method="rtn"),
            "which only --method gptq can: prune first, then quantize with rtn",
        ),
        (Quantization(sparsity="0.5", prune="wonda"), r"unknown method 'wonda' \(did you mean wanda\?\)"),
        (Quantization(sparsity="3:7"), "pattern 3:7 does not fit .*: its width 64 is not a multiple of 7"),
    ],
)
def test_options_that_cannot_work(tiny: Maker, tmp_path: Path, how: Quantization, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        quantize(tiny("llama"), tmp_path / "out", how)
    assert not list(tmp_path.iterdir())


def test_nothing_is_rounded_twice(tiny: Maker, tmp_path: Path) -> None:
    quantize(tiny("llama"), tmp_path / "out", Quantization(method="rtn"))
    with pytest.raises(UsageError, match="is quantized already: quantize the model it was made from"):
        quantize(tmp_path / "out", tmp_path / "again")
    with pytest.raises(UsageError, match="--type q8_0 would round it once more"):
        export(str(tmp_path / "out"), tmp_path / "a.gguf", kind="q8_0", verify=False)
    with pytest.raises(UsageError, match=r"keeps the codes of a quantized model, and .* is none"):
        export(str(tiny("llama")), tmp_path / "a.gguf", kind="packed", verify=False)
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


def test_the_card_and_the_manifest_say_how(tiny: Maker, tmp_path: Path) -> None:
    shutil.copytree(tiny("llama"), tmp_path / "model")
    (tmp_path / "model" / "README.md").write_text("# A model\n\nWith a past.\n")
    quantize(tmp_path / "model", tmp_path / "out", Quantization(bits=3))
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith("# A model\n\nWith a past.\n")
    assert "int3-g32: 92,160 weights" in card
    assert "3.50 bits" in card
    said = json.loads((tmp_path / "out" / "secateur.json").read_text())
    assert said["integers"]["method"] == "gptq"
    assert said["source"] == open_model(str(tmp_path / "model")).digest
