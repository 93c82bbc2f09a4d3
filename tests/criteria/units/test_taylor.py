from __future__ import annotations

import pytest
import torch
from tests.problems import make_view

from secateur.criteria.units.taylor import taylor
from secateur.tensors.unit_view import UnitView


def test_equals_the_formula() -> None:
    view = make_view("kv")
    change = {name: (weight * view.gradients[name]).double() for name, weight in view.weights.items()}
    expected = []
    for unit in range(3):
        rows, few = range(unit * 8, unit * 8 + 8), range(unit * 4, unit * 4 + 4)
        channels = (
            [change["q"][r] for r in rows]
            + [change["q.bias"][r] for r in rows]
            + [change["o"][:, r] for r in rows]
        )
        channels += [change[name][r] for name in ("k", "v") for r in few]
        expected.append(float(sum(channel.sum().abs() for channel in channels)))
    torch.testing.assert_close(taylor(view).double(), torch.tensor(expected, dtype=torch.float64))


def test_predicts_what_a_small_step_towards_zero_does_to_a_loss() -> None:
    """Where only one column of a linear loss shrinks, the score is the loss's change."""
    view = make_view("ffn")
    probe = view.gradients["down"].double()
    weight = view.weights["down"].double()
    alone = UnitView(view.group, view.weights, {}, {"down": view.gradients["down"]})
    for unit, score in enumerate(taylor(alone).tolist()):
        without = weight.clone()
        without[:, unit] = 0
        change = float((probe * weight).sum() - (probe * without).sum())
        assert score == pytest.approx(abs(change), rel=1e-4)


def test_needs_gradients() -> None:
    view = make_view("ffn")
    with pytest.raises(ValueError, match="needs gradients"):
        taylor(UnitView(view.group, view.weights))
