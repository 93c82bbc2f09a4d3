"""GPTQ against the textbook, and joint with pruning against one after the other."""

from __future__ import annotations

import pytest
import torch
from tests.problems import make_problem
from tests.quantizers.problems import WIDTH, output_error

from secateur.quantizers.gptq import gptq, joint, swept
from secateur.quantizers.rtn import imatrix
from secateur_runtime.errors import SecateurError
from secateur_runtime.kernels.quantized import Grid


def test_the_remaining_weights_compensate_for_pruning_and_rounding() -> None:
    """With zeros given, a sweep loses less than rounding the survivors to nearest."""
    weight, stats = make_problem(64, WIDTH)
    pruned = weight.masked_fill(
        torch.rand(weight.shape, generator=torch.Generator().manual_seed(1)) < 0.5, 0.0
    )
    assert output_error(gptq(pruned, stats, Grid(bits=3)), pruned, stats) < 0.6 * output_error(
        imatrix(pruned, stats, Grid(bits=3)), pruned, stats
    )


def test_the_sweep_equals_the_textbook() -> None:
    """Column by column with the inverse Hessian of the columns left over, as in the paper's equation."""
    grid, (weight, stats) = Grid(bits=4, group=16), make_problem(5, 32)
    found, _ = swept(weight, stats, grid, weight)
    assert stats.gram is not None
    gram = stats.gram.double()
    gram.diagonal().add_(gram.diagonal() * min(max(0.01, 32 / stats.tokens), 1.0))
    current, left = weight.double().clone(), gram.diagonal().argsort(descending=True, stable=True).tolist()
    scales = found.scales.double()
    while left:
        inverse = torch.linalg.inv(gram[left][:, left])
        column = left[0]
        scale = scales[:, column // 16]
        settled = (current[:, column] / scale).round().clamp(grid.lowest, grid.highest) * scale
        current[:, left] -= torch.outer((current[:, column] - settled) / inverse[0, 0], inverse[0])
        current[:, column] = settled
        left = left[1:]
    torch.testing.assert_close(found.dense().double(), current, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("grid", [Grid(bits=4), Grid(bits=3, symmetric=False)], ids=str)
def test_pruned_and_rounded_at_once_beats_one_after_the_other(grid: Grid) -> None:
    weight, stats = make_problem(64, WIDTH)
    pruned = weight.masked_fill(weight.abs() < weight.abs().median(), 0.0)
    at_once = joint(weight, stats, grid, pruned)
    assert torch.equal(at_once.dense() == 0, (pruned == 0) | (at_once.dense() == 0))
    assert output_error(at_once, weight, stats) < 0.9 * output_error(gptq(pruned, stats, grid), weight, stats)


def test_missing_statistics_are_refused() -> None:
    weight, stats = make_problem(24, WIDTH)
    stats.gram = None
    with pytest.raises(SecateurError, match="Gram matrix"):
        gptq(weight, stats, Grid())
