from __future__ import annotations

import pytest
import torch

from secateur.criteria.obs import DAMPING, obs
from secateur.tensors.stats import LinearStats


def test_is_the_cost_of_removal_with_all_others_free() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 6, generator=generator)
    inputs = torch.randn(50, 6, generator=generator) @ torch.randn(6, 6, generator=generator)
    gram = (inputs.T @ inputs / 50).double()
    saliency = obs(weight, LinearStats(50, gram.diagonal().float(), inputs.mean(0), gram.float()))
    damped = gram + DAMPING * gram.diagonal().diag()
    for column in range(6):
        others = [index for index in range(6) if index != column]
        # least squares of the removed column on the others leaves the Schur complement
        fit = torch.linalg.solve(damped[others][:, others], damped[others, column])
        remainder = damped[column, column] - damped[column, others] @ fit
        torch.testing.assert_close(
            saliency[:, column].double(), weight[:, column].double().square() * remainder, rtol=1e-4, atol=0
        )


def test_an_indefinite_sum_is_damped_until_it_factorises() -> None:
    gram = torch.tensor([[1.0, 1.2], [1.2, 1.0]])
    saliency = obs(torch.ones(1, 2), LinearStats(1, gram.diagonal(), torch.zeros(2), gram))
    assert bool(saliency.isfinite().all())


def test_needs_the_gram_matrix() -> None:
    with pytest.raises(ValueError, match="gram"):
        obs(torch.ones(1, 2), LinearStats(1, torch.ones(2), torch.zeros(2)))
