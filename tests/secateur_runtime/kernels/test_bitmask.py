from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from secateur_runtime.errors import SourceError, UsageError
from secateur_runtime.kernels.bitmask import Packed, pack
from secateur_runtime.kernels.quantized import Codes, Grid


def sparse(rows: int, columns: int, share: float, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=random).bfloat16()
    return weight * (torch.rand(rows, columns, generator=random) >= share)


def codes(rows: int, columns: int, grid: Grid, share: float = 0.5, seed: int = 0) -> Codes:
    random = torch.Generator().manual_seed(seed)
    values = torch.randint(grid.lowest, grid.highest + 1, (rows, columns), generator=random).to(torch.int8)
    scales = torch.rand(rows, columns // grid.group, generator=random).half() + 0.5
    return Codes(grid, values * (torch.rand(rows, columns, generator=random) >= share), scales)


@given(st.integers(1, 7), st.integers(1, 200), st.sampled_from([0.0, 0.3, 0.9, 1.0]), st.integers(0, 5))
def test_bfloat16_comes_back_exactly(rows: int, columns: int, share: float, seed: int) -> None:
    weight = sparse(rows, columns, share, seed)
    packed = pack(weight)
    packed.check("w")
    assert torch.equal(packed.dense(), weight)
    assert len(packed.values) == int((weight != 0).sum())


@given(
    st.integers(1, 7),
    st.integers(1, 5),
    st.sampled_from(["int8-g16", "int4-g16", "int3-g48", "int6-g32"]),
    st.sampled_from([0.0, 0.5, 1.0]),
)
def test_codes_come_back_exactly(rows: int, groups: int, name: str, share: float) -> None:
    grid = Grid.parse(name)
    weight = codes(rows, groups * grid.group, grid, share)
    packed = pack(weight)
    packed.check("w")
    back = packed.codes()
    assert isinstance(back, Codes)
    assert torch.equal(back.values, weight.values)
    assert torch.equal(packed.dense(), weight.dense())


def test_sizes_are_those_of_the_layout() -> None:
    packed = pack(sparse(64, 4096, 0.5))
    assert packed.nbytes == 64 * 4096 // 8 + 2 * len(packed.values) + 4 * 64
    assert packed.nbytes < 0.58 * 2 * 64 * 4096


def test_what_cannot_be_exact_is_refused() -> None:
    with pytest.raises(UsageError, match="finer than bfloat16"):
        pack(torch.tensor([[1.0 + 2**-20]]))
    with pytest.raises(UsageError, match="no code that is always zero"):
        pack(
            Codes(
                Grid(symmetric=False),
                torch.zeros(1, 32, dtype=torch.int8),
                torch.ones(1, 1).half(),
                torch.ones(1, 1, dtype=torch.int8),
            )
        )


def damaged(packed: Packed) -> dict[str, Packed]:
    extra = packed.mask.clone()
    extra[1, -1] = 0x80
    flipped = packed.mask.clone()
    flipped[1, 0] ^= 1
    assert packed.scales is not None
    return {
        "keeps columns that it does not have": replace(packed, mask=extra),
        "the mask of row 1 keeps": replace(packed, mask=flipped),
        "it holds": replace(packed, values=packed.values[:-1]),
        "its values are": replace(packed, values=packed.values.float()),
        "its mask are torch.uint8": replace(packed, mask=packed.mask[:, :8]),
        "its counts are torch.int64": replace(packed, counts=packed.counts.long()),
        "its scales are missing": replace(packed, scales=None),
        "its scales are not finite": replace(packed, scales=packed.scales * torch.inf),
        "a grid int8-g64": replace(packed, grid=Grid(bits=8, group=64)),
        "a shape of 0 x 4": replace(packed, shape=(0, 4)),
    }


@pytest.mark.parametrize("problem", damaged(pack(codes(3, 96, Grid(bits=8)))))
def test_parts_that_do_not_fit_are_refused(problem: str) -> None:
    packed = pack(codes(3, 96, Grid(bits=8)))
    with pytest.raises(SourceError, match=f"w is damaged: .*{problem}"):
        damaged(packed)[problem].check("w")
