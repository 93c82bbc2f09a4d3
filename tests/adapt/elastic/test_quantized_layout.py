"""The layout of quantized matrices against the rounding that it stores."""

from __future__ import annotations

import pytest
import torch

from secateur.adapt.elastic.quantized_layout import INT4, Coded
from secateur.quantizers.rtn import plainly


@pytest.mark.parametrize("dtype", [torch.int8, INT4])
@pytest.mark.parametrize("inputs", [64, 96, 150])
@pytest.mark.parametrize("dim", [0, 1])
def test_arrays_have_the_shapes_and_bytes_that_are_counted(dtype: torch.dtype, inputs: int, dim: int) -> None:
    coded = Coded.of(dtype, inputs, outside=False)
    assert coded is not None
    weight = torch.randn(5, inputs, generator=torch.Generator().manual_seed(0))
    arrays = coded.arrays(weight.T if dim else weight, dim)
    assert tuple(each.shape for each in arrays) == coded.shapes(5, dim)
    assert sum(each.nbytes for each in arrays) == coded.bytes(5)


def test_eight_bits_are_codes_above_128_with_their_scales() -> None:
    coded = Coded.of(torch.int8, 128, outside=False)
    assert coded is not None
    weight = torch.randn(3, 128, generator=torch.Generator().manual_seed(1))
    codes, scales = coded.arrays(weight, 0)
    dense = (codes.float() - 128) * scales.float().repeat_interleave(coded.group, 1)
    assert torch.equal(dense, plainly(weight, 8).dense())
    assert (dense - weight).abs().max() < weight.abs().max() / 100


def test_floats_are_not_coded_and_matrices_outside_of_blocks_keep_eight_bits() -> None:
    assert Coded.of(torch.bfloat16, 64, outside=False) is None
    assert Coded.of(INT4, 64, outside=True) == Coded(8, 64)
    assert Coded.of(INT4, 64, outside=False) == Coded(4, 64)
