"""Greedy elimination against refits by brute force in float64."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from tests.problems import make_problem
from torch import Tensor

from secateur.tensors.linalg import default_damping
from secateur.tensors.stats import LinearStats
from secateur.transform.obs_elimination import ROUNDS, eliminate
from secateur_runtime.errors import SecateurError


def least_error(weight: Tensor, gram: Tensor, removed: list[int]) -> float:
    """Return the squared output error once the other inputs are refitted by least squares."""
    kept = [index for index in range(len(gram)) if index not in removed]
    change = -weight.clone()
    change[:, kept] = 0
    change[:, kept] = torch.linalg.solve(gram[kept][:, kept], -(change @ gram)[:, kept].T).T
    return float((change @ gram * change).sum())


@pytest.mark.parametrize("block", [1, 2])
def test_each_step_removes_the_unit_whose_loss_is_least_after_a_refit(block: int) -> None:
    weight, stats = make_problem(4, 8)
    found = eliminate(weight, stats, block)
    assert stats.gram is not None
    gram = stats.gram.double()
    gram += default_damping(stats) * torch.diag(gram.diagonal())
    units = 8 // block
    order: list[int] = []
    errors = [0.0]
    while len(order) < units - 1:
        losses = {
            unit: least_error(
                weight.double(),
                gram,
                [one * block + place for one in (*order, unit) for place in range(block)],
            )
            for unit in range(units)
            if unit not in order
        }
        order.append(min(losses, key=lambda unit: losses[unit]))
        errors.append(losses[order[-1]])
    assert found.order[:-1] == tuple(order)
    assert found.errors[:-1] == pytest.approx(errors, rel=1e-3, abs=1e-5)
    assert found.errors[-1] == float("inf")


def test_many_units_are_removed_several_at_once_and_all_of_them_are_ordered() -> None:
    units = 2 * ROUNDS + 5
    weight, stats = make_problem(3, units)
    found = eliminate(weight, stats, 1)
    assert sorted(found.order) == list(range(units))
    assert len(found.errors) == units + 1
    assert all(later >= earlier for earlier, later in pairwise(found.errors))


def test_an_input_without_weight_goes_first_and_costs_nothing() -> None:
    weight, stats = make_problem(4, 8)
    weight[:, 5] = 0
    found = eliminate(weight, stats, 1)
    assert found.order[0] == 5
    assert found.errors[1] == pytest.approx(0, abs=1e-9)


def test_a_missing_gram_matrix_is_refused() -> None:
    with pytest.raises(SecateurError, match="needs the Gram matrix"):
        eliminate(torch.ones(2, 4), LinearStats(5, torch.ones(4), torch.ones(4)), 1)
