"""What every criterion of depth is shown, and which ones score sub-blocks."""

from __future__ import annotations

import pytest
import torch
from tests.criteria.depth.problems import FIRST, SECOND, TARGETS

from secateur.criteria.depth import DEPTH_CRITERIA, compared_by
from secateur_runtime.errors import UsageError

SHOWN = {"angular": "span", "influence": "block", "kl": "predictions", "laco": "last", "loss": "predictions"}


@pytest.mark.parametrize("name", list(DEPTH_CRITERIA))
def test_each_gives_a_finite_cost_for_every_position_and_says_what_it_compares(name: str) -> None:
    first = FIRST.clone()
    cost = DEPTH_CRITERIA[name].function(first, SECOND, TARGETS)
    assert cost.shape == (7,)
    assert bool(cost.isfinite().all())
    assert torch.equal(first, FIRST)
    assert compared_by(name) == SHOWN[name]
    assert DEPTH_CRITERIA[name].summary


@pytest.mark.parametrize("name", ["angular", "laco"])
def test_a_criterion_of_whole_blocks_refuses_sub_blocks(name: str) -> None:
    with pytest.raises(UsageError, match="influence, kl, loss"):
        compared_by(name, halves=True)


def test_an_unknown_criterion_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown depth criterion 'nearness'"):
        compared_by("nearness")
