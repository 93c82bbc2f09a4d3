from __future__ import annotations

import torch
from tests.problems import make_view

from secateur.criteria.units.ppm import ppm
from secateur.tensors.unit_view import UnitView


def test_equals_the_formula() -> None:
    view = make_view("ffn")
    # a row of one sign: the size of its least weight adds, it is not taken off
    weights = {**view.weights, "gate": view.weights["gate"].abs() + 1}
    gate, up = weights["gate"].double(), weights["up"].double()
    expected = [
        float(g.max() + g.min().abs() + u.max() + u.min().abs()) for g, u in zip(gate, up, strict=True)
    ]
    torch.testing.assert_close(
        ppm(UnitView(view.group, weights)).double(), torch.tensor(expected, dtype=torch.float64)
    )
