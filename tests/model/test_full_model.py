"""A whole model in transformers holds every stored weight."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.conftest import Maker
from tests.uneven import save_uneven, widths

from secateur.model.full_model import load_whole
from secateur.model.handle import open_model, open_registered

TOKENS = torch.arange(24).reshape(2, 12)


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3_text"])
def test_it_is_what_transformers_loads(tiny: Maker, family: str) -> None:
    from transformers import AutoModelForCausalLM

    found = load_whole(open_model(str(tiny(family))))
    expected = AutoModelForCausalLM.from_pretrained(tiny(family), dtype=torch.float32).eval()
    state = expected.state_dict()
    assert found.state_dict().keys() == state.keys()
    assert all(torch.equal(weight, state[name]) for name, weight in found.state_dict().items())
    with torch.no_grad():
        assert torch.equal(found(TOKENS).logits, expected(TOKENS).logits)


def test_a_tied_head_stays_tied_and_types_are_as_asked(tiny: Maker) -> None:
    model = load_whole(open_model(str(tiny("qwen3"))), torch.bfloat16)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_blocks_of_unequal_width_are_loaded_too(tiny: Maker, tmp_path: Path) -> None:
    """Of the missing sub-blocks there are no weights; the stored ones are all there."""
    folder = save_uneven(tiny("llama"), tmp_path / "model", widths([(4, 2, 64), (0, 0, 32), (2, 1, 0)]))
    model = open_registered(str(folder))
    state = load_whole(model).state_dict()
    assert state.keys() == set(model.graph.tensors)
    assert all(torch.equal(state[name], model.source.read(name)) for name in state)
