"""Quantized folders: a round trip, folders of other tools, and one line for damage."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tests.conftest import Maker

from secateur.model.formats.compressed_tensors import (
    PackedSource,
    packed_tensors,
    quantization_config,
    unpacked,
)
from secateur.model.handle import open_model
from secateur.quantizers.rtn import nearest
from secateur_runtime.errors import SecateurError
from secateur_runtime.kernels.quantized import Codes, Grid

pytest.importorskip("compressed_tensors", reason="pip install 'secateur[quantize]'")

WEIGHT = "model.layers.1.mlp.down_proj.weight"


@pytest.fixture
def folder(tiny: Maker, tmp_path: Path) -> Path:
    """A tiny model with one weight packed."""
    path = tmp_path / "model"
    shutil.copytree(tiny("llama"), path)
    weights = load_file(path / "model.safetensors")
    dense = weights.pop(WEIGHT)
    codes = nearest(dense, torch.ones(dense.shape[1]), Grid(bits=3, symmetric=False))
    save_file(weights | packed_tensors(WEIGHT, codes), path / "model.safetensors", metadata={"format": "pt"})
    _configure(path, quantization_config=quantization_config({WEIGHT: codes.grid}, []))
    return path


def _configure(path: Path, **changed: Any) -> None:
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, **changed}))


@given(st.integers(2, 8), st.booleans(), st.integers(9, 20), st.integers(1, 3), st.sampled_from([32, 48, 96]))
def test_codes_survive_packing(bits: int, symmetric: bool, rows: int, groups: int, group: int) -> None:
    grid, generator = Grid(bits=bits, group=group, symmetric=symmetric), torch.Generator().manual_seed(bits)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randint(grid.lowest, grid.highest + 1, shape, generator=generator, dtype=torch.int8)

    codes = Codes(
        grid,
        draw(rows, groups * group),
        torch.rand(rows, groups, generator=generator).half(),
        None if symmetric else draw(rows, groups),
    )
    stored = packed_tensors("w", codes)
    assert (
        sum(tensor.nbytes for name, tensor in stored.items() if not name.endswith("_shape")) == codes.nbytes
    )
    back = unpacked("w", grid, stored)
    assert torch.equal(back.values, codes.values)
    assert torch.equal(back.dense(), codes.dense())


def test_a_packed_weight_reads_as_the_package_decompresses_it(folder: Path) -> None:
    from compressed_tensors.compressors.pack_quantized import PackedQuantizationCompressor
    from compressed_tensors.quantization import QuantizationScheme

    model = open_model(str(folder))
    assert isinstance(model.source, PackedSource)
    assert model.source.tensors[WEIGHT].dtype == "int3a-g32"
    stored = {
        name.removeprefix(WEIGHT.removesuffix("weight")): tensor
        for name, tensor in load_file(folder / "model.safetensors").items()
        if WEIGHT in name
    }
    scheme = QuantizationScheme(
        **json.loads((folder / "config.json").read_text())["quantization_config"]["config_groups"]["group_0"]
    )
    theirs = PackedQuantizationCompressor.decompress(stored, scheme)["weight"]
    assert torch.equal(model.source.read(WEIGHT), theirs.float())
    assert torch.equal(torch.cat(list(model.source.pieces(WEIGHT))), model.source.read(WEIGHT))


def test_a_model_that_the_package_compressed_reads_as_it_runs(tiny: Maker, tmp_path: Path) -> None:
    """Another tool writes scales in the model's type, symmetric, in groups of 16, for all linears but one."""
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(tiny("llama", dtype="bfloat16"), dtype=torch.bfloat16)
    weights = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 16}
    ignore = ["lm_head", "model.layers.0.mlp.up_proj"]
    apply_quantization_config(
        model,
        QuantizationConfig(config_groups={"g": {"targets": ["Linear"], "weights": weights}}, ignore=ignore),
    )
    for module in model.modules():
        if hasattr(module, "weight_scale"):
            module.weight_scale.data = (module.weight.detach().unflatten(1, (-1, 16)).abs().amax(-1) / 8).to(
                torch.bfloat16
            )
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    shutil.copytree(
        tiny("llama", dtype="bfloat16"), tmp_path / "out", ignore=shutil.ignore_patterns("*.safetensors")
    )
    save_file(
        {name: tensor.contiguous() for name, tensor in model.state_dict().items()},
        tmp_path / "out" / "model.safetensors",
        metadata={"format": "pt"},
    )
    compressor.update_config(str(tmp_path / "out"))
    opened = open_model(str(tmp_path / "out"))
    assert isinstance(opened.source, PackedSource)
    assert set(opened.source.grids.values()) == {Grid(bits=4, group=16)}
    assert "model.layers.0.mlp.up_proj.weight" not in opened.source.grids
    compressor.decompress_model(model)
    for name, weight in model.named_parameters():
        if name in opened.source.grids:
            assert torch.equal(opened.source.read(name).bfloat16(), weight.bfloat16()), name


def _shape(tensors: dict[str, torch.Tensor]) -> None:
    del tensors[WEIGHT + "_shape"]


def _scale(tensors: dict[str, torch.Tensor]) -> None:
    tensors[WEIGHT + "_scale"] = tensors[WEIGHT + "_scale"][:, :2].contiguous()


def _words(tensors: dict[str, torch.Tensor]) -> None:
    tensors[WEIGHT + "_packed"] = tensors[WEIGHT + "_packed"][:, :-2].contiguous()


def _order(tensors: dict[str, torch.Tensor]) -> None:
    tensors[WEIGHT + "_g_idx"] = torch.zeros(96, dtype=torch.int32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_shape, "is missing"),
        (_scale, "does not fit its scales"),
        (_words, "does not fit its scales"),
        (_order, "groups of .* are out of order"),
    ],
)
def test_damage_is_one_line(
    folder: Path, change: Callable[[dict[str, torch.Tensor]], None], message: str
) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(SecateurError, match=message) as caught:
        open_model(str(folder))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "config",
    [
        {"quant_method": "gptq", "bits": 4},
        {"quant_method": "compressed-tensors", "format": "float-quantized"},
        "int4",
        {"format": "pack-quantized"},
    ],
)
def test_another_quantisation_is_named(folder: Path, config: object) -> None:
    _configure(folder, quantization_config=config)
    with pytest.raises(
        SecateurError, match="of quantized folders only compressed-tensors pack-quantized is read"
    ):
        open_model(str(folder))


def test_without_the_package_it_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("compressed_tensors", "compressed_tensors.compressors.pack_quantized.helpers"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(SecateurError, match=r"pip install 'secateur\[quantize\]'"):
        open_model(str(folder)).source.read(WEIGHT)
