"""Codes as GGUF blocks: gguf's own decoder reads exactly the weight, and what no block holds is refused."""

from __future__ import annotations

import gguf
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from hypothesis import given
from hypothesis import strategies as st

from secateur.export.gguf.codes import kind_of_grid, pack_codes
from secateur_runtime.errors import UsageError
from secateur_runtime.kernels.quantized import Codes, Grid, exact_scales

KINDS = {
    "int4-g32": Kind.Q4_0,
    "int2-g64": Kind.Q4_0,
    "int4a-g32": Kind.Q4_1,
    "int3a-g96": Kind.Q4_1,
    "int5-g32": Kind.Q5_0,
    "int5a-g64": Kind.Q5_1,
    "int6-g32": Kind.Q8_0,
}


def draw(grid: Grid, rows: int, groups: int, seed: int) -> Codes:
    generator = torch.Generator().manual_seed(seed)

    def codes(*shape: int) -> torch.Tensor:
        return torch.randint(grid.lowest, grid.highest + 1, shape, generator=generator, dtype=torch.int8)

    scales = torch.randn(rows, groups, generator=generator)
    scales = scales.half() if grid.symmetric else exact_scales(scales, grid.bits).half()
    return Codes(
        grid, codes(rows, groups * grid.group), scales, None if grid.symmetric else codes(rows, groups)
    )


@given(
    st.sampled_from([*KINDS, "int8-g32", "int7-g32", "int2a-g32"]),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(0, 99),
)
def test_ggufs_decoder_reads_the_weight(name: str, rows: int, groups: int, seed: int) -> None:
    codes = draw(Grid.parse(name), rows, groups, seed)
    packed = pack_codes("w", codes)
    kind = kind_of_grid("w", codes.grid)
    assert packed.shape == gguf.quant_shape_to_byte_shape(codes.values.shape, kind)
    assert torch.equal(torch.from_numpy(gguf.quants.dequantize(packed, kind)), codes.dense())


@pytest.mark.parametrize(("name", "kind"), KINDS.items())
def test_the_least_type_is_taken(name: str, kind: Kind) -> None:
    assert kind_of_grid("w", Grid.parse(name)) == kind


@pytest.mark.parametrize("name", ["int8a-g32", "int6a-g32", "int4-g16", "int4-g48"])
def test_a_grid_that_no_type_holds(name: str) -> None:
    with pytest.raises(UsageError, match=r"w lies on the grid .*, which no type of GGUF holds"):
        kind_of_grid("w", Grid.parse(name))


@pytest.mark.parametrize("name", ["int4-g32", "int4a-g32"])
def test_scales_that_a_block_cannot_hold_are_refused(name: str) -> None:
    """Another tool's scales may be float32, or have an offset that is no float16."""
    codes = draw(Grid.parse(name), 2, 1, 0)
    fine = Codes(codes.grid, codes.values, codes.scales.float() * (1 + 2**-12), codes.zeros)
    with pytest.raises(UsageError, match="finer than GGUF stores them"):
        pack_codes("w", fine)
