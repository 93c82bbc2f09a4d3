from __future__ import annotations

import torch
from tests.problems import make_view

from secateur.criteria.units.wanda_sp import wanda_sp


def test_equals_the_formula() -> None:
    for layout, block in (("ffn", 1), ("kv", 8), ("head", 4)):
        view = make_view(layout)
        name = view.group.slices[-1].tensor
        weight, power = view.weights[name].double(), view.stats[name].input_sq.double()
        columns = torch.stack(
            [weight[:, j].abs().sum() / 8 * power[j].sqrt() for j in range(weight.shape[1])]
        )
        expected = torch.stack(
            [columns[unit * block : (unit + 1) * block].sum() for unit in range(view.group.size)]
        )
        torch.testing.assert_close(wanda_sp(view).double(), expected, rtol=1e-5, atol=0)
