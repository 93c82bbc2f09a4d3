from __future__ import annotations

import ctypes
from itertools import product

import pytest
import torch
from tests.secateur_runtime.kernels.problems import KINDS, dense, inputs, rounded, slack, weight
from tests.secateur_runtime.kernels.products import multiply

from secateur_runtime.errors import UsageError
from secateur_runtime.kernels.kernel_weight import Weight
from secateur_runtime.kernels.library import kernels
from secateur_runtime.kernels.quantized import Codes, Grid
from secateur_runtime.kernels.thread_pool import ThreadPool

COLUMNS = (1, 33, 64, 96, 200, 576)  # more of them in driver.c


@pytest.fixture
def library(isa: str) -> ctypes.CDLL:
    """The kernels by each instruction set."""
    loaded = kernels()
    assert loaded is not None
    assert loaded.sec_isa().decode() == isa
    return loaded


@pytest.mark.parametrize("kind", KINDS)
def test_products_are_those_of_float64(library: ctypes.CDLL, kind: str) -> None:
    isa = library.sec_isa().decode()
    for columns, count, share in product(COLUMNS, (1, 2, 3, 8), (0.0, 0.5, 1.0)):
        groups = [
            0,
            *(group for group in (32, 64, 96, 128) if kind.startswith("int") and columns % group == 0),
        ]
        for group in groups:
            stored, x = (
                weight(kind, 5, columns, share=share, group=group, seed=columns),
                inputs(count, columns),
            )
            found, used = multiply(library, Weight(stored), x).double(), rounded(kind, x, isa)
            assert ((found - used @ dense(stored).T).abs() <= slack(stored, used)).all(), (
                columns,
                count,
                share,
                group,
            )


@pytest.mark.parametrize("kind", KINDS)
def test_any_number_of_threads_gives_the_same_numbers(library: ctypes.CDLL, kind: str) -> None:
    stored, x = Weight(weight(kind, 37, 192)), inputs(3, 192)
    alone = multiply(library, stored, x)
    for count in (1, 2, 3):
        pool = ThreadPool(library, count)
        for _ in range(20):
            assert torch.equal(multiply(library, stored, x, pool), alone)


def test_rounding_inputs_to_codes_costs_little(library: ctypes.CDLL) -> None:
    stored, x = (
        weight("int8", 64, 512, group=64),
        torch.randn(4, 512, generator=torch.Generator().manual_seed(1)),
    )
    exact = x.double() @ dense(stored).T
    assert (multiply(library, Weight(stored), x) - exact).norm() < 1e-4 * exact.norm()


def test_weights_that_no_kernel_takes_are_refused() -> None:
    codes = torch.zeros(1, 48, dtype=torch.int8)
    with pytest.raises(UsageError, match="multiples of 32"):
        Weight(Codes(Grid(group=16), codes, torch.ones(1, 3).half()))
    with pytest.raises(UsageError, match="symmetric"):
        Weight(
            Codes(
                Grid(group=48, symmetric=False),
                codes,
                torch.ones(1, 1).half(),
                torch.zeros(1, 1, dtype=torch.int8),
            )
        )
    with pytest.raises(UsageError, match="float32 and bfloat16"):
        Weight(torch.ones(1, 1).half())
