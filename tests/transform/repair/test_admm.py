from __future__ import annotations

from itertools import combinations

import pytest
import torch
from tests.problems import make_problem
from torch import Tensor

from secateur.core.pattern import Pattern, Scope
from secateur.criteria.wanda import wanda
from secateur.transform.mask import Scorer
from secateur.transform.repair import REPAIRS
from secateur.transform.repair.admm import admm
from secateur.transform.repair.objective import problem


def test_is_near_the_best_of_all_supports() -> None:
    weight, stats = make_problem(12, 8)
    result = admm(weight, stats, Pattern.parse("0.5"), None, "row")
    task = problem(weight, stats)
    found, best = 0.0, 0.0
    for row in range(12):
        target = task.dense[row].double()
        found += float((target - result[row]) @ task.gram @ (target - result[row]))
        best += min(removal_cost(target, task.gram, list(pruned)) for pruned in combinations(range(8), 4))
    assert best <= found < 1.25 * best


def removal_cost(target: torch.Tensor, gram: torch.Tensor, pruned: list[int]) -> float:
    """Return the error of the best weight without the inputs `pruned`.

    Their Schur complement's quadratic form.
    """
    kept = [index for index in range(len(target)) if index not in pruned]
    fit = torch.linalg.solve(gram[kept][:, kept], gram[kept][:, pruned])
    schur = gram[pruned][:, pruned] - gram[pruned][:, kept] @ fit
    return float(target[pruned] @ schur @ target[pruned])


def reconstruction_error(weight: Tensor, original: Tensor, gram: Tensor) -> float:
    """The squared change of the outputs, relative to the outputs: `tr(D H Dᵀ) / tr(W H Wᵀ)`."""
    wide = gram.double()
    base = original.double()
    change = weight.double() - base
    return float((change @ wide * change).sum() / (base @ wide * base).sum())


@pytest.mark.parametrize("text", ["0.5", "0.7", "2:4"])
def test_each_stronger_solver_reconstructs_better(text: str) -> None:
    weight, stats = make_problem(96, 128)
    gram = problem(weight, stats).gram

    def error(repair: str, scorer: Scorer | None, scope: Scope = "row") -> float:
        result = REPAIRS[repair].function(weight, stats, Pattern.parse(text), scorer, scope)
        return reconstruction_error(result, weight, gram)

    masked, swept = error("none", wanda), error("obs", wanda)
    solved, own_sweep, alps = error("lsq", wanda), error("obs", None), error("admm", None)
    assert alps < 0.9 * own_sweep
    assert alps < 0.9 * solved
    assert own_sweep < masked
    assert solved < swept < masked
    assert error("admm", None, "tensor") < 1.001 * alps


def test_a_target_of_other_inputs_is_reconstructed() -> None:
    weight, stats = make_problem(24, 48, cross=True)
    assert stats.gram is not None
    pattern = Pattern.parse("0.5")
    dense = problem(weight, stats).dense
    corrected = admm(weight, stats, pattern, None, "row")
    stats.cross = None
    uncorrected = admm(weight, stats, pattern, None, "row")
    assert reconstruction_error(corrected, dense, stats.gram) < reconstruction_error(
        uncorrected, dense, stats.gram
    )


def test_a_criterion_gives_the_start_not_the_end() -> None:
    weight, stats = make_problem(24, 48)
    assert stats.gram is not None
    pattern = Pattern.parse("0.5")
    started = admm(weight, stats, pattern, wanda, "row")
    fixed = REPAIRS["lsq"].function(weight, stats, pattern, wanda, "row")
    assert reconstruction_error(started, weight, stats.gram) < reconstruction_error(fixed, weight, stats.gram)
