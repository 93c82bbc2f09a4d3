"""The comparison that decides whether a written model is kept."""

from __future__ import annotations

import math

import pytest
import torch
from tests.conftest import Maker

from secateur.model.handle import open_model
from secateur.model.written.reload_check import accept, difference, last_states
from secateur_runtime.errors import VerificationError


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_last_states_are_the_input_of_the_final_norm(tiny: Maker, family: str) -> None:
    from transformers import AutoModelForCausalLM

    tokens = torch.randint(200, (2, 20), generator=torch.Generator().manual_seed(0))
    whole = AutoModelForCausalLM.from_pretrained(tiny(family), dtype=torch.float32).eval()
    seen: list[torch.Tensor] = []
    whole.model.norm.register_forward_pre_hook(lambda _norm, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        whole(tokens)
    found = last_states(open_model(str(tiny(family))).stream(), tokens)
    torch.testing.assert_close(found, seen[0], rtol=1e-5, atol=1e-5)


def test_a_difference_is_relative_to_the_largest_value() -> None:
    meant = torch.tensor([[1.0, -8.0], [2.0, 0.0]])
    assert difference(meant, meant) == 0
    assert difference(meant + torch.tensor([[0.0, 0.0], [-2.0, 1.0]]), meant) == pytest.approx(0.25)


@pytest.mark.parametrize("found", [0.0, 1e-6, 9.9e-5])
def test_rounding_is_accepted(found: float) -> None:
    accept(found)
    with pytest.raises(VerificationError):
        accept(found + 1e-3)


@pytest.mark.parametrize("found", [1.1e-4, 1.0, math.inf, math.nan])
def test_anything_else_is_one_line(found: float) -> None:
    with pytest.raises(
        VerificationError, match=r"does not compute what was meant .*; nothing was kept"
    ) as caught:
        accept(found)
    assert "\n" not in str(caught.value)
