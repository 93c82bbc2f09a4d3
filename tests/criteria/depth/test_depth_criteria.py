"""Every criterion of depth against its formula, written out in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from secateur.criteria.depth import DEPTH_CRITERIA, compared_by
from secateur_runtime.errors import UsageError

FIRST, SECOND = torch.randn(2, 7, 11, generator=torch.Generator().manual_seed(0))
TARGETS = torch.tensor([0, 3, 10, 4, 4, 9, 1])


def _cosine(a: Tensor, b: Tensor) -> float:
    x: list[float] = a.double().tolist()
    y: list[float] = b.double().tolist()
    return sum(p * q for p, q in zip(x, y, strict=True)) / math.sqrt(
        sum(p * p for p in x) * sum(q * q for q in y)
    )


def _log_probability(logits: Tensor, token: int) -> float:
    values = logits.double().tolist()
    return float(values[token] - math.log(sum(math.exp(value) for value in values)))


def _divergence(dense: Tensor, pruned: Tensor) -> float:
    return sum(
        math.exp(_log_probability(dense, k)) * (_log_probability(dense, k) - _log_probability(pruned, k))
        for k in range(11)
    )


EXPECTED = {
    "influence": [1 - _cosine(a, b) for a, b in zip(FIRST, SECOND, strict=True)],
    "laco": [1 - _cosine(a, b) for a, b in zip(FIRST, SECOND, strict=True)],
    "angular": [math.acos(_cosine(a, b)) / math.pi for a, b in zip(FIRST, SECOND, strict=True)],
    "loss": [-_log_probability(b, int(token)) for b, token in zip(SECOND, TARGETS, strict=True)],
    "kl": [_divergence(a, b) for a, b in zip(FIRST, SECOND, strict=True)],
}


@pytest.mark.parametrize("name", list(DEPTH_CRITERIA))
def test_it_is_its_formula(name: str) -> None:
    assert DEPTH_CRITERIA[name].function(FIRST, SECOND, TARGETS).tolist() == pytest.approx(
        EXPECTED[name], rel=1e-4, abs=1e-5
    )
    assert DEPTH_CRITERIA[name].summary


@pytest.mark.parametrize("name", ["angular", "laco"])
def test_what_judges_whole_blocks_refuses_halves(name: str) -> None:
    with pytest.raises(UsageError, match="influence, kl, loss"):
        compared_by(name, halves=True)
