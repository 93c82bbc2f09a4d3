"""Weights without their zeros: what a folder stores, that it comes back, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.conftest import Maker
from torch import Tensor

from secateur.model.formats.open_source import open_source
from secateur.model.formats.quantized_source import CONFIG_KEY
from secateur.model.formats.sparse_folder import SparseSource, put_together, sparse_config, sparse_tensors
from secateur_runtime.errors import SecateurError, SourceError, UnsupportedModelError
from secateur_runtime.kernels.bitmask import pack
from secateur_runtime.kernels.quantized import Codes, Grid

WEIGHT = "model.layers.1.mlp.up_proj.weight"


def half_of(weight: Tensor) -> Tensor:
    """The weight in bfloat16, every second entry zero, the first row wholly."""
    sparse = weight.bfloat16()
    sparse.view(-1)[1::2] = 0
    sparse[0] = 0
    return sparse


@pytest.fixture
def folder(tiny: Maker, tmp_path: Path) -> Path:
    """A folder of which one weight is stored without its zeros."""
    folder = Path(shutil.copytree(tiny("llama", dtype="bfloat16"), tmp_path / "model"))
    tensors = load_file(folder / "model.safetensors")
    sparse = pack(half_of(tensors.pop(WEIGHT)))
    save_file(
        {**tensors, **sparse_tensors(WEIGHT, sparse)}, folder / "model.safetensors", metadata={"format": "pt"}
    )
    configure(folder, **sparse_config({WEIGHT: (sparse.shape, None)}))
    return folder


def configure(folder: Path, **stored: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, CONFIG_KEY: stored}))


def test_the_stored_parts_by_hand() -> None:
    weight = torch.zeros(2, 70, dtype=torch.bfloat16)
    weight[0, 9], weight[1, 0], weight[1, 69] = 3.0, 1.0, 2.0
    stored = sparse_tensors("w", pack(weight))
    mask = torch.zeros(2, 16, dtype=torch.uint8)
    mask[0, 1], mask[1, 0], mask[1, 8] = 2, 1, 32
    assert torch.equal(stored["w_mask"], mask)
    assert stored["w_count"].tolist() == [1, 2]
    assert stored["w_values"].tolist() == [3.0, 1.0, 2.0]
    assert stored.keys() == {"w_mask", "w_count", "w_values"}


@pytest.mark.parametrize("bits", [4, 8])
def test_codes_come_back_exactly(bits: int) -> None:
    grid = Grid(bits=bits, group=32)
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(grid.lowest, grid.highest + 1, (6, 64), generator=generator).to(torch.int8)
    values[values % 3 == 0] = 0
    codes = Codes(grid, values, (torch.rand(6, 2, generator=generator) + 0.5).half(), None)
    stored = sparse_tensors("w", pack(codes))
    found = put_together("w", (6, 64), grid, stored).codes()
    assert isinstance(found, Codes)
    assert torch.equal(found.values, values)
    assert torch.equal(found.scales, codes.scales)


def test_a_folder_reads_like_the_whole_one(folder: Path, tiny: Maker) -> None:
    source, whole = open_source(str(folder)), open_source(str(tiny("llama", dtype="bfloat16")))
    assert isinstance(source, SparseSource)
    assert source.sparse == {WEIGHT}
    assert source.tensors == whole.tensors
    for name in whole.tensors:
        expected = half_of(whole.read(name)) if name == WEIGHT else whole.read(name)
        assert torch.equal(source.read(name), expected)
    assert torch.equal(source.packed(WEIGHT).dense(), source.unpacked(WEIGHT))


SHAPE: list[Any] = [96, 64]


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (
            {"version": 2},
            UnsupportedModelError,
            "stored in version 2 of secateur-sparse, and only 1 is known",
        ),
        ({"version": True}, UnsupportedModelError, "stored in version True"),
        ({"weights": {}}, SourceError, "lists no sparse weights"),
        ({"weights": {WEIGHT: SHAPE}}, SourceError, f"what config.json says of the sparse weight {WEIGHT}"),
        ({"weights": {WEIGHT: {"shape": [96, -1], "stored": "bf16"}}}, SourceError, "cannot be"),
        ({"weights": {WEIGHT: {"shape": SHAPE, "stored": "int9-g7"}}}, SourceError, "is unknown"),
        ({"weights": {WEIGHT: {"shape": SHAPE, "stored": "int8-g32"}}}, SourceError, "_scale is missing"),
        ({"weights": {"model.norm.weight": {"shape": SHAPE, "stored": "bf16"}}}, SourceError, "cannot be"),
    ],
)
def test_descriptions_that_do_not_fit_are_one_line(
    folder: Path, change: dict[str, Any], kind: type[SecateurError], message: str
) -> None:
    config = json.loads((folder / "config.json").read_text())[CONFIG_KEY]
    configure(folder, **{**config, **change})
    with pytest.raises(kind, match=message) as caught:
        open_source(str(folder))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("part", "damage"),
    [
        ("_mask", lambda tensor: tensor ^ 1),
        ("_count", lambda tensor: tensor + 1),
        ("_values", lambda tensor: tensor[:-1]),
        ("_values", lambda tensor: tensor.float()),
    ],
)
def test_parts_that_do_not_fit_each_other_are_one_line(
    folder: Path, part: str, damage: Callable[[Tensor], Tensor]
) -> None:
    stored = load_file(folder / "model.safetensors")
    stored[WEIGHT + part] = damage(stored[WEIGHT + part]).contiguous()
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    source = open_source(str(folder))
    with pytest.raises(SourceError) as caught:
        source.read(WEIGHT)
    assert "\n" not in str(caught.value)
