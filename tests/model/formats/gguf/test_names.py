"""GGUF names and row layouts, against the tables of the `gguf` package and a permutation by hand."""

from __future__ import annotations

from pathlib import Path

import gguf
import pytest
import torch
from tests.conftest import Maker
from tests.model.formats.gguf.gguf_variants import rewrite

from secateur.model.families import EMBED, FAMILIES, FINAL_NORM, HEAD
from secateur.model.formats.gguf.names import OUTSIDE, block_names, undo_permutation
from secateur.model.formats.open_source import open_source
from secateur.model.graph_builder import read_graph
from secateur_runtime.errors import UnsupportedModelError


@pytest.mark.parametrize("family", FAMILIES)
def test_names_are_those_of_llama_cpp(family: str) -> None:
    row = FAMILIES[family]
    arch = next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == row.in_gguf().loader.name)
    table = gguf.get_tensor_name_map(arch, 1)
    assert set(block_names(row).values()) == set(row.modules)
    for stored, module in block_names(row).items():
        assert table.get_name(f"model.layers.0.{module}") == f"blk.0.{stored}"


def test_names_outside_the_blocks_are_those_of_llama_cpp() -> None:
    table = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 1)
    for stored, name in OUTSIDE.items():
        assert table.get_name(name, try_suffixes=(".weight",)) == stored
    assert set(OUTSIDE.values()) == {EMBED, FINAL_NORM, HEAD}


def test_interleaved_pairs_become_two_runs() -> None:
    """Two heads of width 4, whose rows are numbered by their place in transformers' order."""
    stored = torch.tensor([0, 2, 1, 3, 4, 6, 5, 7])
    assert undo_permutation(stored, 2).tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    matrix = stored[:, None].expand(-1, 3)
    assert torch.equal(undo_permutation(matrix, 2), torch.arange(8)[:, None].expand(-1, 3))


def test_unknown_and_missing_tensors(tiny: Maker, tmp_path: Path) -> None:
    path = rewrite(tiny("qwen2"), tmp_path / "a.gguf", lambda writer: None, {"blk.0.ssm_a": [1.0]})
    with pytest.raises(
        UnsupportedModelError, match=r"these GGUF tensors are not those of a qwen2 model: blk.0.ssm_a"
    ):
        open_source(str(path))
    path = rewrite(tiny("qwen2"), tmp_path / "b.gguf", lambda writer: None, skip=("blk.1.ffn_up.weight",))
    with pytest.raises(UnsupportedModelError, match=r"missing model.layers.1.mlp.up_proj.weight"):
        read_graph(open_source(str(path)))
