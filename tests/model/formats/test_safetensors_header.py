"""Headers of safetensors files: what the package writes, and every kind of damage as one line."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from tests.conftest import Maker

from secateur.model.formats.open_source import open_source
from secateur.model.formats.safetensors_header import read_safetensors
from secateur_runtime.errors import SourceError


@pytest.fixture
def folder(tiny: Maker, tmp_path: Path) -> Path:
    """A llama folder that a test may damage."""
    return Path(shutil.copytree(tiny("llama"), tmp_path / "model"))


def header_of(path: Path) -> tuple[dict[str, dict[str, object]], bytes]:
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def rewrite(path: Path, change: Callable[[dict[str, dict[str, object]]], None]) -> None:
    """Change the header of a safetensors file, keeping its data."""
    header, data = header_of(path)
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


NORM = "model.norm.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda header: header[NORM].update(data_offsets=[0, 256]), "starts at|is expected"),
        (lambda header: header[NORM].update(data_offsets=[0, 10**15]), "has 1000000000000000 bytes"),
        (lambda header: header[NORM].update(data_offsets=[4]), "no usable shape or offsets"),
        (lambda header: header[NORM].update(shape=[-64]), "no usable shape or offsets"),
        (lambda header: header[NORM].update(shape=[True]), "no usable shape or offsets"),
        (lambda header: header[NORM].update(shape=[63]), "has 256 bytes"),
        (
            lambda header: header[NORM].update(dtype="F8_E4M3"),
            "is stored as 'F8_E4M3', which cannot be pruned",
        ),
        (lambda header: header[NORM].update(dtype=["F32"]), r"is stored as \['F32'\]"),
        (lambda header: header.update({NORM: 3}), "is not described"),
        (lambda header: header.pop(NORM), "is expected|end at byte"),
    ],
)
def test_damaged_headers(
    folder: Path, change: Callable[[dict[str, dict[str, object]]], None], message: str
) -> None:
    rewrite(folder / "model.safetensors", change)
    with pytest.raises(SourceError, match=message) as caught:
        open_source(str(folder))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it is 0 bytes long"),
        (b"abc", "it is 3 bytes long"),
        (struct.pack("<Q", 2**63) + b"{}", "announces a header of 9223372036854775808"),
        (struct.pack("<Q", 2) + b"[]", "not a JSON object"),
        (struct.pack("<Q", 2) + b"{'", "not JSON"),
        (struct.pack("<Q", 2) + b"\xff\xff", "not JSON"),
        (struct.pack("<Q", 100_000) + b"[" * 100_000, "not JSON"),
    ],
)
def test_files_that_are_not_safetensors(folder: Path, data: bytes, message: str) -> None:
    (folder / "model.safetensors").write_bytes(data)
    with pytest.raises(SourceError, match=message):
        open_source(str(folder))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_headers_are_an_error_or_sound(tiny: Maker, tmp_path: Path, data: st.DataObject) -> None:
    original = (tiny("llama") / "model.safetensors").read_bytes()
    end = 8 + struct.unpack("<Q", original[:8])[0]
    changed = bytearray(original)
    for place in data.draw(st.lists(st.integers(0, end - 1), min_size=1, max_size=4)):
        changed[place] = data.draw(st.integers(0, 255))
    path = tmp_path / "mutated.safetensors"
    path.write_bytes(changed[: data.draw(st.sampled_from([len(changed), end, end // 2, len(changed) - 1]))])
    with suppress(SourceError):
        assert all(tensor.offset < len(changed) for tensor in read_safetensors(path).values())


def test_a_truncated_file(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(
        SourceError, match=r"damaged or cut short: its tensors end at byte .* get the file again"
    ):
        open_source(str(folder))


def test_a_header_says_where_the_bytes_lie(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    tensors = {
        "a": torch.arange(6, dtype=torch.int32).reshape(2, 3),
        "b": torch.ones(5, dtype=torch.bfloat16),
    }
    save_file(tensors, path, metadata={"format": "pt"})
    stored, data = read_safetensors(path), path.read_bytes()
    assert {name: (row.shape, row.dtype) for name, row in stored.items()} == {
        "a": ((2, 3), "I32"),
        "b": ((5,), "BF16"),
    }
    assert struct.unpack_from("<6i", data, stored["a"].offset) == (0, 1, 2, 3, 4, 5)
    assert data[stored["b"].offset : stored["b"].offset + 10] == b"\x80\x3f" * 5
