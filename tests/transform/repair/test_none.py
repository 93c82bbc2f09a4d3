"""No repair zeroes what the criterion prunes and nothing else."""

from __future__ import annotations

import pytest
import torch
from tests.problems import make_problem

from secateur.core.pattern import Pattern
from secateur.criteria.magnitude import magnitude
from secateur.transform.repair.none import none
from secateur_runtime.errors import UsageError


def test_the_smallest_weights_of_each_row_become_zero() -> None:
    _, stats = make_problem(2, 4)
    weight = torch.tensor([[1.0, -4, 3, 2], [0.1, 0.2, -0.4, 0.3]])
    assert none(weight, stats, Pattern.parse("0.5"), magnitude, "row").tolist() == [
        [0, -4, 3, 0],
        [0, 0, weight[1, 2].item(), weight[1, 3].item()],
    ]
    assert none(weight, stats, Pattern.parse("0.5"), magnitude, "tensor").tolist() == [[1, -4, 3, 2], [0] * 4]


def test_a_criterion_is_needed() -> None:
    with pytest.raises(UsageError, match="name a criterion"):
        none(*make_problem(2, 4), Pattern.parse("0.5"), None, "row")
