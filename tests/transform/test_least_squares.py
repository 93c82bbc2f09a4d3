"""The refit of retained inputs against its definition in float64."""

from __future__ import annotations

import pytest
import torch
from tests.problems import make_problem, make_stats

from secateur.tensors.stats import LinearStats
from secateur.transform.least_squares import DAMPING, refit
from secateur_runtime.errors import SecateurError

KEPT = torch.tensor([0, 1, 4, 6, 9, 10])


def test_it_is_the_minimiser_of_the_damped_error() -> None:
    """No change of any retained weight lowers the error, so its gradient is zero there."""
    weight, stats = make_problem(5, 12)
    found = refit(weight, stats, KEPT)
    assert stats.gram is not None
    gram = stats.gram.double()
    gram += DAMPING * torch.diag(gram.diagonal())
    slope = (found.double() - weight.double()) @ gram
    assert float(slope[:, KEPT].abs().max()) < 1e-5 * float(gram.abs().max())
    removed = [index for index in range(12) if index not in KEPT]
    assert not found[:, removed].any()


def test_inputs_that_repeat_others_are_replaced_by_them() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(500, 3, generator=generator)
    weight = torch.randn(4, 6, generator=generator)
    found = refit(weight, make_stats(torch.cat([inputs, inputs], 1)), torch.arange(3))
    # inputs are independent, so the damping shrinks the sum of both weights by 1.1 / 1.2 each
    expected = (weight[:, :3] * (1 + DAMPING) + weight[:, 3:]) / (1 + DAMPING)
    torch.testing.assert_close(found[:, :3], expected, rtol=0.05, atol=0.05)


def test_a_missing_gram_matrix_is_refused() -> None:
    with pytest.raises(SecateurError, match="needs the Gram matrix"):
        refit(torch.ones(2, 3), LinearStats(5, torch.ones(3), torch.ones(3)), torch.tensor([0]))
