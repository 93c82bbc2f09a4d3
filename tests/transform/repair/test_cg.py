"""Conjugate gradients against a direct solve of every row in float64."""

from __future__ import annotations

from itertools import pairwise

import torch
from tests.problems import make_problem

from secateur.transform.repair.cg import Scaled, solve_on_support
from secateur.transform.repair.objective import problem


def test_scaled_inputs_have_unit_power_and_the_same_objective() -> None:
    task = problem(*make_problem(5, 16))
    scaled = Scaled.of(task)
    torch.testing.assert_close(scaled.gram.diagonal(), torch.ones(16))
    torch.testing.assert_close(scaled.unscale(scaled.dense), task.dense)
    other = torch.randn(5, 16, generator=torch.Generator().manual_seed(4))
    change = other.double() - task.dense.double()
    inner = other * scaled.norm - scaled.dense
    torch.testing.assert_close(
        ((inner @ scaled.gram) * inner).sum().double(), (change @ task.gram * change).sum(), rtol=1e-4, atol=0
    )


def test_it_is_the_least_squares_solution_on_the_support() -> None:
    task = Scaled.of(problem(*make_problem(6, 24)))
    mask = torch.rand(6, 24, generator=torch.Generator().manual_seed(2)) > 0.5
    mask[3] = False
    found = solve_on_support(torch.randn(6, 24), mask, task, tolerance=1e-9)
    assert not found[~mask].any()
    gram = task.gram.double()
    for row in range(6):
        support = mask[row].nonzero().squeeze(1)
        target = (task.dense[row].double() @ gram)[support]
        exact = torch.linalg.solve(gram[support][:, support], target)
        torch.testing.assert_close(found[row, support].double(), exact, rtol=1e-3, atol=1e-3)


def test_every_iteration_lowers_the_error() -> None:
    task = Scaled.of(problem(*make_problem(6, 24)))
    mask = torch.rand(6, 24, generator=torch.Generator().manual_seed(2)) > 0.5
    errors = []
    for limit in range(6):
        change = solve_on_support(task.dense, mask, task, tolerance=0, limit=limit) - task.dense
        errors.append(float(((change @ task.gram) * change).sum()))
    assert all(later < earlier for earlier, later in pairwise(errors))
