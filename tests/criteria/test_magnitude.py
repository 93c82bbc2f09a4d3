from __future__ import annotations

import torch

from secateur.criteria.magnitude import magnitude
from secateur.tensors.stats import LinearStats


def test_is_the_absolute_value() -> None:
    weight = torch.tensor([[1.5, -2.0, 0.0]])
    unused = torch.full((3,), torch.nan)
    assert magnitude(weight, LinearStats(0, unused, unused)).tolist() == [[1.5, 2.0, 0.0]]
