"""Layouts of whole files: each tensor once, blocks of unequal width, and what no loader takes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.conftest import Maker

from secateur.core.graph import Block, Graph
from secateur.export.gguf.description import naming_of
from secateur.export.gguf.layout import Layout, lay_out
from secateur.model.handle import open_model
from secateur_runtime.errors import UnsupportedModelError


def _laid(folder: object, *, ffn: int | None = None, attention: bool = True, index: int = 1) -> Layout:
    """Lay out a model whose block `index` has another number of FFN neurons, or no attention."""
    model = open_model(str(folder))
    return lay_out(_changed(model.graph, index, ffn, attention), naming_of(model))


def _changed(graph: Graph, index: int, ffn: int | None, attention: bool) -> Graph:
    block = graph.blocks[index]
    shape = block.shape
    gone: set[str] = set()
    if ffn is not None:
        shape = replace(shape, intermediate_size=ffn)
        gone |= set() if ffn else set(block.halves["ffn"])
    if not attention:
        shape = replace(shape, n_heads=0, n_kv_heads=0)
        gone |= set(block.halves["attn"])
    tensors = {name: info for name, info in graph.tensors.items() if name not in gone}
    blocks = list[Block](graph.blocks)
    blocks[index] = replace(block, shape=shape, tensors=tuple(t for t in block.tensors if t not in gone))
    return replace(graph, blocks=tuple(blocks), tensors=tensors)


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "phi3"])
def test_every_tensor_of_the_model_is_stored_once(tiny: Maker, family: str) -> None:
    graph = open_model(str(tiny(family))).graph
    laid = _laid(tiny(family))
    assert sorted(part for stored in laid.tensors for part in stored.parts) == sorted(graph.tensors)
    assert len({stored.name for stored in laid.tensors}) == len(laid.tensors)
    for stored in laid.tensors:
        assert stored.shape == graph.tensors[stored.parts[0]].shape
        assert stored.add == (1.0 if family == "gemma2" and stored.name.endswith("norm.weight") else 0.0)
        rotary = family == "llama" and stored.name.split(".")[-2] in ("attn_q", "attn_k")
        assert bool(stored.heads) == rotary


def test_blocks_of_unequal_width_go_to_a_loader_that_takes_them(tiny: Maker) -> None:
    laid = _laid(tiny("llama"), ffn=64)
    assert laid.arch == "deci"
    assert [shape.intermediate_size for shape in laid.shapes] == [96, 64, 96]
    fused = _laid(tiny("qwen3"), ffn=64)
    assert fused.arch == "openelm"
    joined = next(stored for stored in fused.tensors if stored.name == "blk.1.attn_qkv.weight")
    assert [part.split(".")[-2] for part in joined.parts] == ["q_proj", "k_proj", "v_proj"]
    assert joined.shape == (128 + 64 + 64, 64)
    assert not any(stored.heads for stored in fused.tensors), "openelm does not interleave"


def test_a_removed_sub_block_is_a_narrow_one_of_zeros(tiny: Maker) -> None:
    """Only where the loader requires it, and norms of zeros would be no norms."""
    zeros = {stored.name: stored for stored in _laid(tiny("llama"), ffn=0).tensors if not stored.parts}
    assert {name: stored.shape for name, stored in zeros.items()} == {
        "blk.1.ffn_norm.weight": (64,),
        "blk.1.ffn_gate.weight": (32, 64),
        "blk.1.ffn_up.weight": (32, 64),
        "blk.1.ffn_down.weight": (64, 32),
    }
    assert {name: stored.add for name, stored in zeros.items()} == {
        name: float(name.endswith("norm.weight")) for name in zeros
    }
    inner = _laid(tiny("llama"), attention=False)
    assert all(stored.parts for stored in inner.tensors), "deci takes a block without attention"
    first = _laid(tiny("llama"), attention=False, index=0)
    assert {s.name for s in first.tensors if not s.parts} >= {
        "blk.0.attn_q.weight",
        "blk.0.attn_output.weight",
    }


def test_a_removed_block_is_left_out(tiny: Maker) -> None:
    laid = _laid(tiny("llama"), ffn=0, attention=False)
    assert laid.arch == "llama"
    assert laid.alive == (0, 2)
    assert not any(stored.name.startswith("blk.2.") for stored in laid.tensors)


@pytest.mark.parametrize(
    ("family", "change", "message"),
    [
        ("gemma2", {"ffn": 64}, "loads gemma2 only with blocks of equal width: prune it with --uniform"),
        ("smollm3", {"attention": False}, "loads smollm3 only with blocks of equal width"),
    ],
)
def test_widths_that_no_loader_takes(tiny: Maker, family: str, change: dict[str, int], message: str) -> None:
    with pytest.raises(UnsupportedModelError, match=message):
        _laid(tiny(family), **change)  # type: ignore[arg-type]


def test_openelm_has_tied_embeddings(tiny: Maker) -> None:
    with pytest.raises(UnsupportedModelError, match="only if its embeddings are tied"):
        _laid(tiny("qwen3", tie_word_embeddings=False), ffn=64)


def test_no_attention_at_all(tiny: Maker) -> None:
    model = open_model(str(tiny("llama")))
    graph = model.graph
    for index in range(3):
        graph = _changed(graph, index, None, attention=False)
    with pytest.raises(UnsupportedModelError, match="loads no model without attention"):
        lay_out(graph, naming_of(model))
