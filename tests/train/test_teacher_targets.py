"""A teacher's targets are its likeliest tokens, with their log probabilities in float64."""

from __future__ import annotations

import pytest
import torch
from tests.conftest import Maker
from transformers import AutoModelForCausalLM

from secateur.core.progress import Silent
from secateur.train.teacher_targets import teach


@pytest.mark.parametrize("states", [True, False])
def test_targets_are_what_the_model_predicts(tiny: Maker, *, states: bool) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny("llama"), dtype=torch.float32)
    tokens = torch.randint(300, (3, 12), generator=torch.Generator().manual_seed(0))
    found = teach(
        model, tokens, 5, 2.0, device=torch.device("cpu"), bfloat16=False, states=states, progress=Silent()
    )
    with torch.no_grad():
        output = model(tokens, output_hidden_states=True)
    logs = (output.logits.double() / 2.0).log_softmax(-1)
    top = logs.topk(5)
    order = found.logs.float().argsort(-1, descending=True)
    chosen = found.tokens.gather(-1, order).long()
    assert found.tokens.dtype == torch.int32
    torch.testing.assert_close(logs.gather(-1, chosen), top.values, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found.logs.gather(-1, order).double(), top.values, rtol=1e-3, atol=1e-3)
    if states:
        assert found.states is not None
        assert found.states.dtype == torch.bfloat16
        torch.testing.assert_close(found.states.float(), output.hidden_states[-1], rtol=2**-7, atol=1e-6)
    else:
        assert found.states is None


def test_the_vocabulary_bounds_the_number_of_tokens(tiny: Maker) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny("llama"), dtype=torch.float32)
    tokens = torch.arange(4)[None]
    found = teach(
        model, tokens, 10**6, 1.0, device=torch.device("cpu"), bfloat16=True, states=False, progress=Silent()
    )
    vocabulary = model.config.vocab_size
    assert found.tokens.sort(-1).values.tolist() == [[list(range(vocabulary))] * 4]
    # with all tokens the probabilities add up to one
    torch.testing.assert_close(
        found.logs.double().exp().sum(-1), torch.ones(1, 4).double(), rtol=0, atol=5e-3
    )
