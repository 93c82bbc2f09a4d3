from __future__ import annotations

import pytest
import torch
from tests.problems import make_problem

from secateur.core.pattern import Pattern
from secateur.criteria.wanda import wanda
from secateur.transform.repair.lsq import lsq
from secateur.transform.repair.objective import problem
from secateur_runtime.errors import UsageError


@pytest.mark.parametrize("text", ["0.5", "2:4"])
@pytest.mark.parametrize("cross", [False, True])
def test_matches_a_direct_solve_of_every_row(text: str, cross: bool) -> None:
    weight, stats = make_problem(8, 32, cross=cross)
    result = lsq(weight, stats, Pattern.parse(text), wanda, "row").double()
    task = problem(weight, stats)
    target = task.dense.double() @ task.gram
    for row in range(8):
        support = result[row].nonzero().squeeze(1)
        exact = torch.linalg.solve(task.gram[support][:, support], target[row, support])
        torch.testing.assert_close(result[row, support], exact, rtol=0.02, atol=0.02)


def test_needs_a_criterion() -> None:
    weight, stats = make_problem(4, 8)
    with pytest.raises(UsageError, match="name a criterion"):
        lsq(weight, stats, Pattern.parse("0.5"), None, "row")
