"""What every quantizer must do, and what sets them apart."""

from __future__ import annotations

import pytest
import torch
from tests.problems import make_problem, make_stats
from tests.quantizers.problems import GRIDS, WIDTH, output_error
from torch import Tensor

from secateur.quantizers import QUANTIZERS, joint_quantizers
from secateur.tensors.stats import LinearStats
from secateur_runtime.kernels.quantized import Codes, Grid

ALL = pytest.mark.parametrize("name", list(QUANTIZERS))
ROWS = 24


def quantized(name: str, weight: Tensor, stats: LinearStats, grid: Grid) -> Codes:
    return QUANTIZERS[name].function(weight, stats, grid)


@ALL
@pytest.mark.parametrize("grid", GRIDS, ids=str)
class TestEveryQuantizer:
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
    lost = {name: output_error(quantized(name, weight, stats, grid), weight, stats) for name in QUANTIZERS}
    assert lost["imatrix"] < 0.95 * lost["rtn"]
    assert lost["gptq"] < 0.7 * lost["imatrix"]


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


@pytest.mark.parametrize("name", joint_quantizers())
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_pruning_and_rounding_at_once_keeps_the_zeros(name: str, grid: Grid) -> None:
    weight, stats = make_problem(ROWS, WIDTH)
    pruned = weight.where(weight > 0, 0.0)
    before = pruned.clone()
    dense = joint_quantizers()[name](weight, stats, grid, pruned).dense()
    assert torch.equal(pruned, before)
    assert bool((dense[pruned == 0] == 0).all())
    assert bool((dense[pruned != 0] != 0).any())
    plain = quantized(name, weight, stats, grid).dense()
    assert torch.equal(joint_quantizers()[name](weight, stats, grid, weight).dense(), plain)
