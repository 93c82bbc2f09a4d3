"""What every way of quantising must do, and what sets them apart."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from tests.problems import make_problem, make_stats
from torch import Tensor

from secateur.quantizers import QUANTIZERS
from secateur.quantizers.gptq import gptq, joint, swept
from secateur.quantizers.refine import refine
from secateur.tensors.stats import LinearStats
from secateur_runtime.errors import SecateurError
from secateur_runtime.kernels.quantized import Codes, Grid

GRIDS = [
    Grid(bits=bits, group=group, symmetric=symmetric)
    for bits, group in ((4, 32), (3, 16), (8, 48), (2, 96))
    for symmetric in (True, False)
]
ALL = pytest.mark.parametrize("name", list(QUANTIZERS))
ROWS, WIDTH = 24, 96


def quantized(name: str, weight: Tensor, stats: LinearStats, grid: Grid) -> Codes:
    return QUANTIZERS[name].function(weight, stats, grid)


def error(codes: Codes, weight: Tensor, stats: LinearStats) -> float:
    assert stats.gram is not None
    change = codes.dense() - weight
    return float((change @ stats.gram * change).sum())


@ALL
@pytest.mark.parametrize("grid", GRIDS, ids=str)
class TestEveryWay:
    def test_codes_lie_on_the_grid(self, name: str, grid: Grid) -> None:
        weight, stats = make_problem(ROWS, WIDTH)
        before = weight.clone()
        codes = quantized(name, weight, stats, grid)
        assert torch.equal(weight, before)
        assert (codes.values.dtype, codes.scales.dtype) == (torch.int8, torch.float16)
        assert codes.values.shape == weight.shape
        assert codes.scales.shape == (ROWS, WIDTH // grid.group)
        assert int(codes.values.min()) >= grid.lowest
        assert int(codes.values.max()) <= grid.highest
        assert (codes.zeros is None) == grid.symmetric
        again = quantized(name, weight, stats, grid)
        assert torch.equal(codes.values, again.values)

    def test_what_is_zero_stays_zero(self, name: str, grid: Grid) -> None:
        weight, stats = make_problem(ROWS, WIDTH)
        mask = torch.rand(weight.shape, generator=torch.Generator().manual_seed(1)) < 0.5
        # whole groups among them
        mask[0] = mask[1, :48] = True
        dense = quantized(name, weight.masked_fill(mask, 0.0), stats, grid).dense()
        assert bool((dense[mask] == 0).all())
        assert bool((dense[~mask] != 0).any())

    def test_degenerate_weights_and_inputs(self, name: str, grid: Grid) -> None:
        weight, stats = make_problem(ROWS, WIDTH)
        assert not quantized(name, torch.zeros(ROWS, WIDTH), stats, grid).dense().any()
        dead = make_stats(torch.zeros(10, WIDTH))
        assert bool(quantized(name, weight, dead, grid).dense().isfinite().all())
        one_sided = quantized(name, weight.abs() + 1, stats, grid).dense()
        assert float((one_sided - weight.abs() - 1).abs().max()) <= float(weight.abs().max() + 1)

    def test_a_product_of_scale_and_code_is_exact_where_there_are_zeros(self, name: str, grid: Grid) -> None:
        """GGUF keeps the offset of such a group as one float16."""
        codes = quantized(name, *make_problem(ROWS, WIDTH), grid)
        if codes.zeros is not None:
            offset = codes.scales.float() * (codes.zeros.float() - grid.lowest)
            assert torch.equal(offset.half().float(), offset)


@pytest.mark.parametrize("grid", [Grid(bits=4), Grid(bits=3), Grid(bits=4, symmetric=False)], ids=str)
def test_the_more_is_known_the_less_is_lost(grid: Grid) -> None:
    weight, stats = make_problem(64, WIDTH)
    lost = {name: error(quantized(name, weight, stats, grid), weight, stats) for name in QUANTIZERS}
    assert lost["imatrix"] < 0.95 * lost["rtn"]
    assert lost["gptq"] < 0.7 * lost["imatrix"]


def test_the_others_answer_for_what_is_pruned_and_rounded() -> None:
    """The joint form: with the mask given, the survivors move to make up for it, so a sweep beats rounding the survivors."""
    weight, stats = make_problem(64, WIDTH)
    pruned = weight.masked_fill(
        torch.rand(weight.shape, generator=torch.Generator().manual_seed(1)) < 0.5, 0.0
    )
    assert error(quantized("gptq", pruned, stats, Grid(bits=3)), pruned, stats) < 0.6 * error(
        quantized("imatrix", pruned, stats, Grid(bits=3)), pruned, stats
    )


def test_the_sweep_equals_the_textbook() -> None:
    """Column by column with the inverse Hessian of what is left, as in the paper's equation, on a small weight."""
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


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_refining_never_loses_more_and_is_a_minimum_in_every_code(grid: Grid) -> None:
    """After enough passes no single code can be changed, the others as they are, without losing more."""
    weight, stats = make_problem(8, WIDTH)
    assert stats.gram is not None
    alive = torch.rand(weight.shape, generator=torch.Generator().manual_seed(2)) < 0.8
    codes = quantized("rtn", weight.masked_fill(~alive, 0.0), stats, grid)
    lost = [error(codes, weight, stats)]
    for _ in range(30):
        codes = refine(weight, stats.gram, codes, alive, 1)
        lost.append(error(codes, weight, stats))
    assert all(later <= earlier * (1 + 1e-4) for earlier, later in pairwise(lost))
    assert lost[-1] < 0.95 * lost[0]
    assert bool((codes.dense()[~alive] == 0).all())
    best = lost[-1] * (1 - 1e-4)
    for row, column in ((0, 0), (3, 50), (7, 95)):
        for change in (-1, 1):
            value = int(codes.values[row, column]) + change
            if alive[row, column] and grid.lowest <= value <= grid.highest:
                values = codes.values.clone()
                values[row, column] = value
                assert error(replace(codes, values=values), weight, stats) >= best


def test_the_scale_is_the_least_squares_one() -> None:
    """With one group for each row and codes that cannot move, the scale is the projection of the weight on them."""
    weight, stats = make_problem(6, 32)
    assert stats.gram is not None
    codes = quantized("rtn", weight, stats, Grid(bits=8))
    doubled = replace(codes, scales=codes.scales * 1.05)
    found = refine(weight, stats.gram, doubled, weight != 0, 1)
    ours = codes.values.float()
    projected = ((ours @ stats.gram) * weight).sum(1) / ((ours @ stats.gram) * ours).sum(1)
    torch.testing.assert_close(found.scales[:, 0].float(), projected, rtol=1e-3, atol=0)


@pytest.mark.parametrize("grid", [Grid(bits=4), Grid(bits=3, symmetric=False)], ids=str)
def test_pruned_and_rounded_at_once_beats_one_after_the_other(grid: Grid) -> None:
    weight, stats = make_problem(64, WIDTH)
    pruned = weight.masked_fill(weight.abs() < weight.abs().median(), 0.0)
    at_once = joint(weight, stats, grid, pruned)
    assert torch.equal(at_once.dense() == 0, (pruned == 0) | (at_once.dense() == 0))
    assert error(at_once, weight, stats) < 0.9 * error(gptq(pruned, stats, grid), weight, stats)


def test_a_grid_that_holds_the_weight_loses_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    scales = torch.rand(ROWS, 3, generator=generator).half() + 0.5
    values = torch.randint(-8, 8, (ROWS, WIDTH), generator=generator, dtype=torch.int8)
    values.view(ROWS, 3, 32)[..., 0] = -8
    weight = Codes(Grid(), values, scales).dense()
    for name in QUANTIZERS:
        torch.testing.assert_close(
            quantized(name, weight, make_problem(ROWS, WIDTH)[1], Grid()).dense(), weight, rtol=1e-3, atol=0
        )


def test_missing_statistics_are_said() -> None:
    weight, stats = make_problem(ROWS, WIDTH)
    stats.gram = None
    with pytest.raises(SecateurError, match="Gram matrix"):
        quantized("gptq", weight, stats, Grid())
