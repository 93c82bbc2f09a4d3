"""Scores of given tokens against the formula in float64 on whole-model logits, one row at a time."""

from __future__ import annotations

import math
import random
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conftest import Maker
from tests.tiny_models import FAMILIES
from transformers import AutoModelForCausalLM

from secateur.core.progress import Silent
from secateur.core.scorer import Scored, ScoreRequest
from secateur.runtime import Backend
from secateur.runtime.token_scorer import TorchScorer, _batches, _groups
from secateur.runtime.torch import TorchBackend


def _whole(folder: object) -> Any:
    return AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32).eval()


def _rows() -> list[ScoreRequest]:
    """Questions with answers that begin alike, two of which differ late, and rows of their own.

    Some longer than a sliding window.
    """
    numbers = random.Random(3)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(numbers.randrange(3, 250) for _ in range(count))

    question, other = tokens(40), tokens(23)
    rows = [ScoreRequest(question, tokens(count)) for count in (1, 9, 4, 1)]
    rows += [ScoreRequest(other + tokens(1), tokens(3)) for _ in range(3)] + [
        ScoreRequest(question[:12] + tokens(2), tokens(2))
    ]
    return (
        rows
        + [ScoreRequest(tokens(1), tokens(count)) for count in (1, 30)]
        + [ScoreRequest(tokens(5), tokens(5))]
    )


def _expected(model: Any, row: ScoreRequest) -> Scored:
    with torch.no_grad():
        logits = model(torch.tensor([[*row.context, *row.tokens]]), use_cache=False).logits[0].double()
    rows = logits[len(row.context) - 1 : -1]
    targets = torch.tensor(row.tokens)
    return Scored(
        float(rows.log_softmax(-1).gather(1, targets[:, None]).sum()),
        bool((rows.argmax(-1) == targets).all()),
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_are_scored_as_if_alone(tiny: Maker, family: str) -> None:
    model = _whole(tiny(family))
    rows = _rows()
    found = TorchScorer(model).score(rows, Silent())
    for row, answer in zip(rows, found, strict=True):
        expected = _expected(model, row)
        assert answer.logprob == pytest.approx(expected.logprob, abs=2e-4)
        assert answer.greedy == expected.greedy


def test_the_likeliest_tokens_are_greedy(tiny: Maker) -> None:
    model = _whole(tiny("llama"))
    made = TorchBackend(model).generate(list(range(5, 25)), 6).tokens
    rows = [
        ScoreRequest(tuple(range(5, 25)), made),
        ScoreRequest(tuple(range(5, 25)), (*made[:5], made[5] + 1)),
    ]
    assert [answer.greedy for answer in TorchScorer(model).score(rows, Silent())] == [True, False]


def test_shared_beginnings_are_run_once(tiny: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer, run = TorchScorer(_whole(tiny("llama"))), list[int]()
    states = scorer._states

    def counted(tokens: torch.Tensor, past: int, cache: object) -> torch.Tensor:
        run.append(tokens.numel())
        return states(tokens, past, cache)

    monkeypatch.setattr(scorer, "_states", counted)
    scorer.score([ScoreRequest(tuple(range(100)), (answer,)) for answer in range(4)], Silent())
    assert run == [99, 4]


def test_a_model_whose_first_attention_went(tiny: Maker) -> None:
    """Transformers reads the length of a cache off the first layer, so nothing may be kept here."""
    model = _whole(tiny("llama"))

    class Nothing(torch.nn.Module):
        def forward(self, hidden_states: torch.Tensor, **_: object) -> tuple[torch.Tensor, None]:
            return torch.zeros_like(hidden_states), None

    model.model.layers[0].self_attn = Nothing()
    rows = _rows()
    for row, answer in zip(rows, TorchScorer(model).score(rows, Silent()), strict=True):
        assert answer.logprob == pytest.approx(_expected(model, row).logprob, abs=2e-4)


def _one_by_one(backend: Backend, row: ScoreRequest) -> Scored:
    """What a backend says of a row, asked for one prediction after another."""
    found = [backend.logprobs([*row.context, *row.tokens[:place]]) for place in range(len(row.tokens))]
    pairs = list(zip(found, row.tokens, strict=True))
    return Scored(
        float(sum(each[token] for each, token in pairs)),
        all(int(np.argmax(each)) == token for each, token in pairs),
    )


def test_any_backend_gives_the_same(tiny: Maker) -> None:
    model, rows = _whole(tiny("qwen3")), _rows()[3:9]
    slow = map(partial(_one_by_one, TorchBackend(model)), rows)
    for left, right in zip(slow, TorchScorer(model).score(rows, Silent()), strict=True):
        assert left.logprob == pytest.approx(right.logprob, abs=2e-4)
        assert left.greedy == right.greedy


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(0, 1), min_size=1, max_size=30),
            st.lists(st.integers(0, 1), min_size=1, max_size=4),
        ),
        max_size=12,
    )
)
def test_every_row_is_in_one_batch_with_its_own_beginning(pairs: list[tuple[list[int], list[int]]]) -> None:
    rows = [ScoreRequest(tuple(context), tuple(tokens)) for context, tokens in pairs]
    batches = list(_batches(_groups(rows)))
    assert sorted(index for batch in batches for group in batch for index in group.rows) == list(
        range(len(rows))
    )
    for batch in batches:
        assert batch[-1].shared == min(group.shared for group in batch)
        for group in batch:
            assert len({rows[index].context[: group.shared] for index in group.rows}) == 1
            assert all(group.shared < len(rows[index].context) for index in group.rows)


def test_a_sum_of_logarithms_of_probabilities(tiny: Maker) -> None:
    """All answers of one token together have the probability one."""
    found = TorchScorer(_whole(tiny("gemma2"))).score(
        [ScoreRequest((5, 6, 7), (token,)) for token in range(384)], Silent()
    )
    vocabulary = _whole(tiny("gemma2")).config.vocab_size
    assert len(found) >= vocabulary - 8
    assert sum(math.exp(answer.logprob) for answer in found[:vocabulary]) == pytest.approx(1.0, abs=1e-4)
