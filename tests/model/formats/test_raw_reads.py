"""Raw reads of weight files: the bytes asked for, or one line."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from secateur.model.formats.raw_reads import digest_files, read_into, row_spans
from secateur_runtime.errors import SourceError

MILLION = 1 << 20


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=3).map(tuple))
def test_spans_cover_every_row_once_and_are_not_large(shape: tuple[int, ...]) -> None:
    spans = list(row_spans(shape))
    assert [row for start, stop in spans for row in range(start, stop)] == list(range(shape[0]))
    width = int(np.prod(shape[1:], dtype=np.int64))
    assert all((stop - start) * width <= MILLION or stop - start == 1 for start, stop in spans)


def test_a_long_vector_is_read_in_pieces() -> None:
    assert list(row_spans((2 * MILLION + 1,))) == [
        (0, MILLION),
        (MILLION, 2 * MILLION),
        (2 * MILLION, 2 * MILLION + 1),
    ]
    assert list(row_spans((0, 5))) == []


@pytest.mark.parametrize("shape", [(2, 3), (5,), (), (0, 4)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.int8])
def test_a_tensor_is_filled_from_its_offset(
    tmp_path: Path, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    expected = torch.arange(1, 1 + int(np.prod(shape)), dtype=torch.float32).reshape(shape).to(dtype)
    path = tmp_path / "weights"
    path.write_bytes(b"seven b" + expected.reshape(-1).view(torch.uint8).numpy().tobytes() + b"more")
    tensor = torch.zeros(shape, dtype=dtype)
    with path.open("rb") as file:
        read_into(file, path, 7, tensor)
    assert torch.equal(tensor, expected)


def test_a_file_that_ends_early_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(bytes(10))
    message = "weights ended 6 bytes early: it changed while it was read"
    with path.open("rb") as file, pytest.raises(SourceError, match=message) as caught:
        read_into(file, path, 2, torch.empty(14, dtype=torch.uint8))
    assert "\n" not in str(caught.value)


def test_a_digest_is_over_all_files_in_order(tmp_path: Path) -> None:
    first, second = tmp_path / "b", tmp_path / "a"
    first.write_bytes(bytes(range(256)) * 8000)
    second.write_bytes(b"end")
    both = hashlib.sha256(first.read_bytes() + b"end").hexdigest()
    assert digest_files([first, second]) == "sha256:" + both
    assert digest_files([second, first]) != "sha256:" + both
    with pytest.raises(SourceError, match=r"cannot read .*gone"):
        digest_files([first, tmp_path / "gone"])
