"""What a plan takes from every block, counted in the tensors themselves."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conftest import Maker

import secateur
from secateur.core.plan import Plan
from secateur.model.handle import open_model
from secateur.pipeline.compare.removed_share import removed


def test_units_halves_and_blocks(tiny: Maker) -> None:
    graph = open_model(str(tiny("llama"))).graph
    plan = Plan(model="sha256:0", keep={"0.ffn": tuple(range(48)), "1.kv": (1,)}, drop=("1.ffn", "2"))
    attention = sum(graph.tensors[name].numel for name in graph.blocks[1].halves["attn"])
    ffn = sum(graph.tensors[name].numel for name in graph.blocks[0].halves["ffn"])
    linears = {name: graph.tensors[name].numel for name in graph.blocks[1].halves["attn"] if "_proj" in name}
    first, second, third = removed(graph, plan)
    assert first == pytest.approx((0.0, 48 * 64 * 3 / ffn))
    assert second == pytest.approx((sum(linears.values()) / 2 / attention, 1.0))
    assert third == (1.0, 1.0)


def test_zeros(tiny: Maker, tmp_path: Path) -> None:
    plan = secateur.plan(str(tiny("llama")), sparsity="2:4", method="magnitude")
    secateur.apply(plan, str(tiny("llama")), tmp_path / "out")
    made = open_model(str(tmp_path / "out"))
    for block, (attention, ffn) in zip(made.graph.blocks, removed(made.graph, plan), strict=True):
        for half, share in (("attn", attention), ("ffn", ffn)):
            tensors = [made.source.read(name) for name in block.halves[half]]
            assert share == pytest.approx(
                sum(int((tensor == 0).sum()) for tensor in tensors)
                / sum(tensor.numel() for tensor in tensors)
            )
