"""The length of a multiplied error is the quadratic form it stands for."""

from __future__ import annotations

import pytest
import torch

from secateur.train.error_metric import metric_root


def test_its_square_is_the_mix_of_the_fisher_information_and_of_all_directions_alike() -> None:
    gradients = torch.randn(50, 6, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [5.0, 1, 1, 1, 0.1, 0]
    )
    fisher = gradients.T @ gradients / 50
    root = metric_root(fisher)
    error = torch.randn(3, 6, generator=torch.Generator().manual_seed(1))
    form = torch.einsum("ni,ij,nj->n", error, 0.8 * 6 / fisher.trace() * fisher + 0.2 * torch.eye(6), error)
    torch.testing.assert_close((error @ root).square().sum(-1), form)
    # random errors count as much as without it
    assert float(root.square().sum()) == pytest.approx(6, rel=1e-5)


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_where_nothing_is_known_all_directions_count_alike(value: float) -> None:
    assert torch.equal(metric_root(torch.full((3, 3), value)), torch.eye(3))
