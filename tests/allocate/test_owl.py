"""OWL against its formula in float64."""

from __future__ import annotations

import pytest
from tests.allocate.problems import allocated
from tests.conftest import Maker

from secateur.allocate.owl import OUTLIER, REACH, Owl
from secateur.tensors.layer_stream import LiveBlock


def spoil(block: LiveBlock) -> None:
    """Give the second block two input weights so large that its scores have outliers."""
    if block.block.index == 1:
        for linear in block.block.linears:
            block.weight(linear.tensor)[:, :2] *= 40


def test_ratios_fall_with_the_share_of_outliers_within_reach_of_the_budget(tiny: Maker) -> None:
    ratios, scores = allocated(tiny("llama"), Owl, 0.5, spoil)
    shares = []
    for index in range(3):
        own = [score.double() for name, score in scores.items() if f"layers.{index}." in name]
        count = sum(score.numel() for score in own)
        mean = sum(float(score.sum()) for score in own) / count
        shares.append(sum(int((score > OUTLIER * mean).sum()) for score in own) / count)
    assert shares[1] > max(shares[0], shares[2])
    spread = max(shares) - min(shares)
    wanted = [0.5 - REACH * (2 * (share - min(shares)) / spread - 1) for share in shares]
    # all blocks weigh the same, so one shift brings the mean of the three to the budget
    shift = 0.5 - sum(wanted) / 3
    for name, ratio in ratios.items():
        block = int(name.split(".")[2])
        assert ratio == pytest.approx(wanted[block] + shift, abs=1e-6)


def test_blocks_that_are_alike_get_the_budget(tiny: Maker) -> None:
    ratios, _ = allocated(tiny("llama", num_hidden_layers=1), Owl, 0.4)
    assert list(ratios.values()) == pytest.approx([0.4] * 7, abs=1e-6)
