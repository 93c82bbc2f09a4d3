"""One loop over the sub-blocks of a block."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.conftest import Maker

from secateur.model.handle import open_model
from secateur.tensors.layer_stream import alone, sub_blocks, without


def test_sub_blocks_come_in_order_without_dropped_and_empty_ones(tiny: Maker) -> None:
    block = open_model(str(tiny("llama"))).graph.blocks[1]
    assert list(sub_blocks(block)) == [(part, frozenset(block.halves[part])) for part in ("attn", "ffn")]
    assert [part for part, _ in sub_blocks(block, {"attn"})] == ["ffn"]
    empty = replace(block, halves={"attn": block.halves["attn"], "ffn": ()})
    assert [part for part, _ in sub_blocks(empty)] == ["attn"]
    assert not list(sub_blocks(block, ("attn", "ffn")))


def test_one_after_the_other_is_the_whole_block(tiny: Maker) -> None:
    states = torch.randn(2, 9, 64, generator=torch.Generator().manual_seed(6))
    with open_model(str(tiny("llama"))).stream().open(1) as live:
        found = states
        for part, _ in sub_blocks(live.block):
            with alone(live, part):
                found = live(found)
            assert not torch.equal(found, states)
        torch.testing.assert_close(found, live(states), rtol=1e-5, atol=1e-6)
        with alone(live, "ffn"):
            ffn = live(states)
        with without(live, ["attn"]):
            assert torch.equal(live(states), ffn)
        with without(live, ["attn", "ffn"]):
            assert torch.equal(live(states), states)


def test_an_error_inside_leaves_the_block_whole(tiny: Maker) -> None:
    states = torch.randn(1, 5, 64, generator=torch.Generator().manual_seed(7))
    with open_model(str(tiny("llama"))).stream().open(0) as live:
        whole = live(states)
        with pytest.raises(ValueError, match="stop"), alone(live, "attn"):
            raise ValueError("stop")
        assert torch.equal(live(states), whole)
