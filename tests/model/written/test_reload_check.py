"""States and logits of a streamed model are those of transformers, and a difference is refused."""

from __future__ import annotations

import pytest
import torch
from tests.conftest import Maker
from transformers import AutoModelForCausalLM

from secateur.model.handle import open_model
from secateur.model.written.reload_check import (
    accept,
    difference,
    last_states,
    model_logits,
    reloaded_difference,
)
from secateur_runtime.errors import VerificationError

TOKENS = torch.randint(200, (3, 20), generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("positions", [None, [3, 19]])
def test_logits_window_after_window(tiny: Maker, positions: list[int] | None) -> None:
    whole = AutoModelForCausalLM.from_pretrained(tiny("llama"), dtype=torch.float32).eval()
    with torch.no_grad():
        meant = whole(TOKENS, use_cache=False).logits
    places = None if positions is None else torch.tensor(positions)
    found = model_logits(open_model(str(tiny("llama"))).stream(), TOKENS, places)
    meant = meant if positions is None else meant[:, positions]
    torch.testing.assert_close(found, meant.flatten(0, 1), rtol=1e-4, atol=1e-5)


def test_a_folder_is_compared_on_the_first_windows(tiny: Maker) -> None:
    meant = last_states(open_model(str(tiny("llama"))).stream(), TOKENS)
    assert reloaded_difference(tiny("llama"), TOKENS, meant[:2]) < 1e-6
    assert reloaded_difference(tiny("llama", rms_norm_eps=0.1), TOKENS, meant[:2]) > 1e-3


def test_a_difference_is_relative_to_the_largest_value() -> None:
    assert difference(torch.tensor([1.0, 3.0]), torch.tensor([1.0, -4.0])) == 7 / 4


@pytest.mark.parametrize("found", [1e-3, float("nan"), float("inf")])
def test_more_than_rounding_is_refused(found: float) -> None:
    accept(1e-5)
    with pytest.raises(VerificationError, match="does not compute what was meant"):
        accept(found)
