from __future__ import annotations

import torch
from tests.problems import make_stats, make_view

from secateur.criteria.units.flap import flap
from secateur.tensors.unit_view import UnitView


def test_equals_the_formula_on_the_inputs_themselves() -> None:
    inputs = torch.randn(60, 24, generator=torch.Generator().manual_seed(1)) * torch.arange(1, 25) + 5
    view = make_view("kv")
    view = UnitView(view.group, view.weights, {"o": make_stats(inputs)})
    weight, variance = view.weights["o"].double(), inputs.double().var(0, correction=0)
    channels = torch.stack([variance[j] * (weight[:, j] ** 2).sum() for j in range(24)])
    torch.testing.assert_close(flap(view).double(), channels.view(3, 8).mean(1), rtol=1e-4, atol=0)


def test_a_constant_input_is_worth_nothing() -> None:
    view = make_view("ffn")
    inputs = torch.randn(60, 12, generator=torch.Generator().manual_seed(1))
    inputs[:, 4] = 7
    scores = flap(UnitView(view.group, view.weights, {"down": make_stats(inputs)}))
    assert int(scores.argmin()) == 4
    assert float(scores[4]) < 1e-4
