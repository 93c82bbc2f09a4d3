"""Uniform gives every tensor the budget itself."""

from __future__ import annotations

from tests.allocate.problems import allocated
from tests.conftest import Maker

from secateur.allocate.uniform import Uniform


def test_every_tensor_of_every_block_has_the_budget(tiny: Maker) -> None:
    ratios, scores = allocated(tiny("llama"), Uniform, 0.37)
    assert len(scores) == 3 * 7
    assert ratios == dict.fromkeys(scores, 0.37)
