from __future__ import annotations

import pytest
import torch

from secateur.tensors.stats import LinearStats
from secateur.transform.repair.objective import damped, problem
from secateur_runtime.errors import SecateurError


def test_a_target_moves_the_dense_solution() -> None:
    generator = torch.Generator().manual_seed(0)
    dense_inputs = torch.randn(60, 5, generator=generator)
    inputs = dense_inputs + 0.3 * torch.randn(60, 5, generator=generator)
    weight = torch.randn(4, 5, generator=generator)
    outputs = dense_inputs @ weight.T
    stats = LinearStats(
        60, inputs.square().mean(0), inputs.mean(0), inputs.T @ inputs / 60, outputs.T @ inputs / 60
    )
    damping = 1e-6
    expected = torch.linalg.lstsq(inputs.double(), outputs.double()).solution.T
    torch.testing.assert_close(problem(weight, stats, damping).dense, expected.float(), rtol=1e-3, atol=1e-3)


def test_a_target_that_says_nothing_leaves_the_weight() -> None:
    weight = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    stats = LinearStats(0, torch.zeros(3), torch.zeros(3), torch.zeros(3, 3), torch.zeros(2, 3))
    torch.testing.assert_close(problem(weight, stats).dense, weight)


def test_damping_grows_until_the_matrix_factorises() -> None:
    gram = torch.tensor([[1.0, 1.5], [1.5, 1.0]])
    shifted, factor = damped(LinearStats(1000, torch.ones(2), torch.zeros(2), gram))
    torch.testing.assert_close(factor @ factor.T, shifted)
    assert float(shifted[0, 0]) == pytest.approx(2.0)


def test_hopeless_statistics_are_refused() -> None:
    for gram in (torch.tensor([[1.0, 1e9], [1e9, 1.0]]), torch.full((2, 2), torch.nan), None):
        with pytest.raises(SecateurError):
            damped(LinearStats(1000, torch.ones(2), torch.zeros(2), gram))
