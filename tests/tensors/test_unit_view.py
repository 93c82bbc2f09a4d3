from __future__ import annotations

import torch

from secateur.core.graph import Group, Slice
from secateur.tensors.unit_view import UnitView, unit_values

WEIGHT = torch.arange(48.0).view(8, 6)


def test_rows_and_columns_of_a_unit() -> None:
    rows = unit_values(WEIGHT, Slice("w", 0, 2, 2), 3)
    assert rows.shape == (3, 2, 6)
    assert torch.equal(rows[1], WEIGHT[4:6])
    columns = unit_values(WEIGHT, Slice("w", 1, 2, 2), 2)
    assert columns.shape == (2, 2, 8)
    assert torch.equal(columns[1], WEIGHT[:, 4:6].T)
    assert torch.equal(unit_values(WEIGHT[0], Slice("b", 0, 1, 2), 3), WEIGHT[0, 2:5].view(3, 1, 1))


def test_inputs_of_a_unit() -> None:
    view = UnitView(Group("0.kv", "kv", 2, (Slice("w", 1, 2, 2),)), {"w": WEIGHT})
    assert torch.equal(view.inputs(view.last, torch.arange(6.0)), torch.tensor([[2.0, 3.0], [4.0, 5.0]]))
    assert torch.equal(view.values(view.last), unit_values(WEIGHT, view.last, 2))
