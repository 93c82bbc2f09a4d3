"""A folder that stores a weight in two parts reads like any other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.conftest import Maker
from torch import Tensor

from secateur.core.graph import TensorInfo
from secateur.model.formats.quantized_source import CONFIG_KEY, CodedSource
from secateur.model.formats.safetensors_source import FolderSource
from secateur.model.graph_builder import read_graph
from secateur_runtime.kernels.quantized import Codes, Grid

WEIGHT = "model.layers.1.mlp.up_proj.weight"
GRID = Grid(bits=8, group=64)


class TwoParts(CodedSource):
    """`WEIGHT` is stored as `_codes`, int8, and `_scale`, one for each row."""

    def codes(self, name: str) -> Codes:
        return Codes(GRID, self._folder.read(name + "_codes"), self._folder.read(name + "_scale"), None)

    def unpacked(self, name: str) -> Tensor:
        return self.codes(name).dense()


@pytest.fixture
def source(tiny: Maker, tmp_path: Path) -> TwoParts:
    folder = Path(shutil.copytree(tiny("llama"), tmp_path / "model"))
    tensors = load_file(folder / "model.safetensors")
    weight = tensors.pop(WEIGHT)
    scale = (weight.abs().amax(1, keepdim=True) / 127).half()
    tensors[WEIGHT + "_scale"] = scale
    tensors[WEIGHT + "_codes"] = (weight / scale).round().clamp(-127, 127).to(torch.int8)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, CONFIG_KEY: {"quant_method": "two-parts"}}))
    whole = {WEIGHT: TensorInfo((96, 64), str(GRID))}
    parts = {WEIGHT + "_codes", WEIGHT + "_scale"}
    return TwoParts(FolderSource(folder, "model"), {WEIGHT: GRID}, whole, parts)


def test_parts_are_seen_as_one_weight(source: TwoParts, tiny: Maker) -> None:
    original = FolderSource(tiny("llama"), "tiny")
    assert set(source.tensors) == set(original.tensors)
    assert source.tensors[WEIGHT] == TensorInfo((96, 64), "int8-g64")
    assert source.grids == {WEIGHT: GRID}
    assert CONFIG_KEY not in source.config
    assert read_graph(source).parameters == read_graph(original).parameters


def test_a_weight_in_parts_comes_whole_and_the_others_as_stored(source: TwoParts, tiny: Maker) -> None:
    original = FolderSource(tiny("llama"), "tiny")
    error = (source.read(WEIGHT) - original.read(WEIGHT)).abs().amax()
    assert 0 < error <= original.read(WEIGHT).abs().amax() / 127
    (piece,) = source.pieces(WEIGHT)
    assert torch.equal(piece, source.read(WEIGHT))
    for name in source.tensors.keys() - {WEIGHT}:
        assert torch.equal(source.read(name), original.read(name))
        assert torch.equal(torch.cat(list(source.pieces(name))), original.read(name))
