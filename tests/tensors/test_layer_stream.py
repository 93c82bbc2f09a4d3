"""A block without some of its sub-blocks, against the two residual additions done by hand."""

from __future__ import annotations

import pytest
import torch
from tests.conftest import Maker

from secateur.model.handle import open_model
from secateur.tensors.layer_stream import without

HIDDEN = torch.randn(2, 12, 64, generator=torch.Generator().manual_seed(5))


def test_without_both_sub_blocks_a_block_changes_nothing(tiny: Maker) -> None:
    with open_model(str(tiny("llama"))).stream().open(1) as block:
        whole = block(HIDDEN)
        with without(block, ("attn", "ffn")):
            assert torch.equal(block(HIDDEN), HIDDEN)
        with without(block, ()):
            assert torch.equal(block(HIDDEN), whole)
        assert torch.equal(block(HIDDEN), whole)


def test_the_sub_blocks_follow_each_other(tiny: Maker) -> None:
    """Attention alone, then the FFN alone on its result, is the whole block."""
    with open_model(str(tiny("llama"))).stream().open(1) as block:
        with without(block, ("ffn",)):
            middle = block(HIDDEN)
        with without(block, ("attn",)):
            found = block(middle)
        assert not torch.allclose(middle, HIDDEN)
        torch.testing.assert_close(found, block(HIDDEN))


def test_an_error_restores_the_block(tiny: Maker) -> None:
    with open_model(str(tiny("llama"))).stream().open(1) as block:
        whole = block(HIDDEN)
        with pytest.raises(ValueError, match="stop"), without(block, ("attn", "ffn")):
            raise ValueError("stop")
        assert torch.equal(block(HIDDEN), whole)
