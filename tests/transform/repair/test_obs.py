from __future__ import annotations

import pytest
import torch
from tests.problems import make_problem
from torch import Tensor

from secateur.core.pattern import Pattern
from secateur.criteria.wanda import wanda
from secateur.transform.repair.objective import problem
from secateur.transform.repair.obs import obs


def sweep(weight: Tensor, gram: Tensor, mask: Tensor) -> Tensor:
    """Prune left to right by the textbook.

    Invert what remains, move each removed weight onto the columns to its right.
    """
    result = weight.double().clone()
    for column in range(weight.shape[1]):
        inverse = torch.linalg.inv(gram[column:, column:])
        for row in (~mask[:, column]).nonzero().squeeze(1).tolist():
            result[row, column:] -= result[row, column].clone() / inverse[0, 0] * inverse[0]
            result[row, column] = 0
    return result


@pytest.mark.parametrize("cross", [False, True])
def test_fixed_mask_matches_the_textbook(cross: bool) -> None:
    weight, stats = make_problem(6, 20, cross=cross)
    pattern = Pattern.parse("0.5")
    result = obs(weight, stats, pattern, wanda, "row")
    task = problem(weight, stats)
    expected = sweep(task.dense, task.gram, result != 0)
    torch.testing.assert_close(result.double(), expected, rtol=1e-3, atol=1e-4)


def test_own_mask_matches_the_textbook_score() -> None:
    weight, stats = make_problem(6, 20)
    result = obs(weight, stats, Pattern.parse("0.5"), None, "row")
    task = problem(weight, stats)
    # one block: the score of a column is its weight over the inverse of what lies to its right
    remaining = torch.stack([torch.linalg.inv(task.gram[column:, column:])[0, 0] for column in range(20)])
    score = weight.double().square() / remaining
    keep = score.argsort(dim=1, descending=True)[:, :10]
    assert torch.equal(result != 0, torch.zeros(6, 20).scatter(1, keep, 1.0) > 0)


def test_groups_are_chosen_with_updated_weights() -> None:
    weight, stats = make_problem(5, 12)
    result = obs(weight, stats, Pattern.parse("2:4"), None, "row")
    task = problem(weight, stats)
    current = task.dense.double()
    for start in range(0, 12, 4):
        remaining = torch.stack(
            [torch.linalg.inv(task.gram[column:, column:])[0, 0] for column in range(start, start + 4)]
        )
        keep = (current[:, start : start + 4].square() / remaining).argsort(dim=1, descending=True)[:, :2]
        mask = torch.ones(5, 12, dtype=torch.bool)
        mask[:, start : start + 4] = torch.zeros(5, 4).scatter(1, keep, 1.0) > 0
        for column in range(start, start + 4):
            one = torch.ones_like(mask)
            one[:, column] = mask[:, column]
            current = sweep_column(current, task.gram, one, column)
    torch.testing.assert_close(result.double(), current, rtol=1e-3, atol=1e-4)


def sweep_column(weight: Tensor, gram: Tensor, mask: Tensor, column: int) -> Tensor:
    inverse = torch.linalg.inv(gram[column:, column:])
    lost = weight[:, column].masked_fill(mask[:, column], 0.0)
    result = weight.clone()
    result[:, column:] -= lost[:, None] / inverse[0, 0] * inverse[0]
    result[:, column] = weight[:, column].masked_fill(~mask[:, column], 0.0)
    return result


def test_blocks_do_not_change_a_fixed_mask_sweep() -> None:
    weight, stats = make_problem(3, 300)
    result = obs(weight, stats, Pattern.parse("0.5"), wanda, "row")
    task = problem(weight, stats)
    torch.testing.assert_close(result.double(), sweep(weight, task.gram, result != 0), rtol=1e-2, atol=1e-3)
