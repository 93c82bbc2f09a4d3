from __future__ import annotations

import torch
from tests.problems import make_view

from secateur.criteria.units.contribution import contribution


def test_equals_the_formula() -> None:
    view = make_view("ffn")
    down, power = view.weights["down"].double(), view.stats["down"].input_sq.double()
    expected = [float(down[:, unit].norm() * power[unit].sqrt()) for unit in range(12)]
    torch.testing.assert_close(contribution(view).double(), torch.tensor(expected, dtype=torch.float64))


def test_channels_of_a_head_add_as_squares() -> None:
    view = make_view("kv")
    o, power = view.weights["o"].double(), view.stats["o"].input_sq.double()
    single = o.norm(dim=0) * power.sqrt()
    torch.testing.assert_close(contribution(view).double(), single.view(3, 8).norm(dim=1))
