"""Likelihood of passages of unequal length: the figures of each are its own."""

from __future__ import annotations

import math

import pytest
import torch
from tests.conftest import Maker
from transformers import AutoModelForCausalLM

from secateur.core.progress import Silent
from secateur.core.text_span import Passage
from secateur.measure.cross_tokenizer import per_unit, predicted_nll, streamed_logits
from secateur.model.handle import open_model

LENGTHS = (40, 3, 2, 97, 40)


def passages() -> list[Passage]:
    generator = torch.Generator().manual_seed(3)
    return [
        Passage(
            tuple(torch.randint(384, (length,), generator=generator).tolist()),
            1 + length // 20,
            length,
            3 * length,
        )
        for length in LENGTHS
    ]


@pytest.mark.parametrize("family", ["llama", "gemma2", "smollm3"])
def test_sums_equal_the_float64_formula(tiny: Maker, family: str) -> None:
    whole = AutoModelForCausalLM.from_pretrained(tiny(family)).double().eval()
    found = predicted_nll(
        streamed_logits(open_model(str(tiny(family))).stream(), passages(), Silent()), passages()
    )
    for sums, passage in zip(found, passages(), strict=True):
        ids = torch.tensor(passage.ids)
        with torch.no_grad():
            likely = whole(ids[None]).logits[0, :-1].log_softmax(-1).gather(-1, ids[1:, None])
        assert sums == pytest.approx(-float(likely[passage.context - 1 :].sum()), rel=1e-6)


def test_a_passage_does_not_depend_on_those_beside_it(tiny: Maker) -> None:
    stream = open_model(str(tiny("llama"))).stream()
    together = predicted_nll(streamed_logits(stream, passages(), Silent()), passages())
    alone = [
        predicted_nll(streamed_logits(stream, [passage], Silent()), [passage])[0] for passage in passages()
    ]
    assert together == pytest.approx(alone, rel=1e-6)


def test_figures_are_per_unit() -> None:
    found = per_unit([2.0, 9.0], [1.0, 4.0], [Passage((1, 2), 1, 1, 4), Passage((1, 2, 3), 1, 4, 6)], "dense")
    assert (found.nll, found.nll_windows, found.tokens, found.reference_nll) == (11 / 5, (2.0, 9 / 4), 5, 1.0)
    assert found.reference_perplexity == math.e
    assert found.bits_per_byte == pytest.approx(11 / math.log(2) / 10)
    assert (found.accuracy, found.kl, found.agreement, found.per_token_of) == (None, None, None, "dense")
    assert [record.name for record in found.records("words", "digest")] == [
        "perplexity",
        "nll",
        "bits_per_byte",
    ]
