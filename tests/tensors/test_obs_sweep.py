"""The OBS sweep against the equations of the paper, column by column with explicit inverses."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from secateur.tensors.obs_sweep import inverse_factor, sweep


def make_hessian(width: int) -> Tensor:
    inputs = torch.randn(4 * width, width, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return inputs.T @ inputs / len(inputs) + 0.01 * torch.eye(width, dtype=torch.float64)


def by_the_equations(weight: Tensor, hessian: Tensor, retained: Tensor) -> Tensor:
    """Prune the columns in order, each time with the inverse of what is left of the Hessian."""
    found = weight.clone()
    for column in range(weight.shape[1]):
        inverse = torch.linalg.inv(hessian[column:, column:])
        error = found[:, column] * ~retained[:, column]
        found[:, column:] -= error[:, None] / inverse[0, 0] * inverse[0]
    return found


def test_the_factor_is_that_of_the_inverse() -> None:
    hessian = make_hessian(7)
    upper = inverse_factor(torch.linalg.cholesky(hessian))
    assert torch.equal(upper, upper.triu())
    torch.testing.assert_close(upper.T @ upper, torch.linalg.inv(hessian))


@pytest.mark.parametrize("step", [1, 3, 10, 128])
def test_the_sweep_equals_the_equations_at_every_step(step: int) -> None:
    generator = torch.Generator().manual_seed(2)
    weight = torch.randn(5, 10, dtype=torch.float64, generator=generator)
    retained = torch.rand(5, 10, generator=generator) > 0.5
    hessian = make_hessian(10)
    current = weight.T.clone()
    upper = inverse_factor(torch.linalg.cholesky(hessian))
    sweep(current, upper, lambda column: current[column] * retained[:, column], step)
    expected = by_the_equations(weight, hessian, retained)
    torch.testing.assert_close(current.T, expected)
    assert bool((expected[~retained].abs() < 1e-12).all())


def test_columns_that_stay_as_they_are_cost_nothing() -> None:
    current = torch.randn(6, 4, generator=torch.Generator().manual_seed(3))
    before = current.clone()
    sweep(
        current, inverse_factor(torch.linalg.cholesky(make_hessian(6)).float()), lambda c: current[c].clone()
    )
    assert torch.equal(current, before)
