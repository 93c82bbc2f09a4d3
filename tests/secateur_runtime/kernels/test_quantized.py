"""Grids and codes: names, limits, and arithmetic that loses nothing."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from secateur_runtime.errors import UsageError
from secateur_runtime.kernels.quantized import Codes, Grid, exact_scales

GRIDS = st.builds(Grid, bits=st.integers(2, 8), group=st.integers(1, 10**6 - 1), symmetric=st.booleans())


@given(GRIDS)
def test_a_grid_is_known_by_its_name(grid: Grid) -> None:
    assert Grid.parse(str(grid)) == grid


@given(st.text(max_size=12))
def test_another_name_is_one_line(name: str) -> None:
    try:
        assert str(Grid.parse(name)) == name
    except UsageError as error:
        assert "\n" not in str(error) or "\n" in name


@pytest.mark.parametrize(("bits", "group"), [(1, 32), (9, 32), (4, 0)])
def test_a_grid_that_cannot_be(bits: int, group: int) -> None:
    with pytest.raises(UsageError):
        Grid(bits=bits, group=group)


def test_a_group_must_divide_the_width() -> None:
    Grid(group=32).check("w", 96)
    with pytest.raises(UsageError, match=r"w has 100 inputs, .* group of 32"):
        Grid(group=32).check("w", 100)


def test_bits_per_weight_count_scales_and_zeros() -> None:
    assert Grid(bits=4, group=32).bits_per_weight == 4.5
    assert Grid(bits=4, group=32, symmetric=False).bits_per_weight == 4.625
    codes = Codes(
        Grid(bits=3, group=32), torch.zeros(5, 64, dtype=torch.int8), torch.ones(5, 2, dtype=torch.float16)
    )
    assert codes.nbytes * 8 == 5 * 64 * codes.grid.bits_per_weight


def test_dense_is_code_less_zero_times_scale() -> None:
    values = torch.tensor([[0, 1, -8, 7]], dtype=torch.int8)
    codes = Codes(
        Grid(group=2, symmetric=False),
        values,
        torch.tensor([[0.5, 2.0]]).half(),
        torch.tensor([[1, -1]], dtype=torch.int8),
    )
    assert codes.dense().tolist() == [[-0.5, 0.0, -14.0, 16.0]]


@given(st.floats(1e-4, 1e4), st.integers(2, 8), st.data())
def test_a_product_with_an_exact_scale_is_a_half(value: float, bits: int, data: st.DataObject) -> None:
    scale = exact_scales(torch.tensor([value]), bits)
    code = data.draw(st.integers(0, (1 << bits) - 1))
    product = scale * code
    if product < 65504:
        assert float(product.half()) == float(product)
    assert float(scale) == pytest.approx(value, rel=2.0 ** -(11 - bits))


@pytest.mark.parametrize("symmetric", [True, False])
def test_rows_split_off_are_the_rows(symmetric: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(-8, 8, (7, 64), dtype=torch.int8, generator=generator)
    zeros = None if symmetric else torch.randint(-8, 8, (7, 2), dtype=torch.int8, generator=generator)
    codes = Codes(Grid(symmetric=symmetric), values, torch.rand(7, 2, generator=generator).half(), zeros)
    parts = codes.split([4, 1, 2])
    assert [len(part.values) for part in parts] == [4, 1, 2]
    assert torch.equal(torch.cat([part.dense() for part in parts]), codes.dense())
