from __future__ import annotations

import random
import resource
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.conftest import Maker

from secateur.model.formats.gguf.gguf_source import GgufSource
from secateur.model.formats.gguf.header import read_header
from secateur.model.graph_builder import read_graph
from secateur_runtime.errors import SecateurError, SourceError

MORE = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def entry(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def tensor(name: str = "a", sizes: tuple[int, ...] = (2,), kind: int = 0, offset: int = 0) -> bytes:
    return (
        text(name)
        + struct.pack("<I", len(sizes))
        + struct.pack(f"<{len(sizes)}Q", *sizes)
        + struct.pack("<IQ", kind, offset)
    )


def gguf_bytes(
    entries: list[bytes],
    tensors: list[bytes],
    data: bytes = bytes(64),
    *,
    version: int = 3,
    counts: tuple[int, int] | None = None,
) -> bytes:
    """Return a GGUF file, whose announced counts of tensors and entries may lie."""
    n_tensors, n_entries = counts or (len(tensors), len(entries))
    head = (
        b"GGUF" + struct.pack("<IQQ", version, n_tensors, n_entries) + b"".join(entries) + b"".join(tensors)
    )
    return head + bytes(-len(head) % 32) + data


def open_all(path: Path) -> None:
    """Do all that reads metadata."""
    source = GgufSource(path, str(path))
    read_graph(source)
    source.tokenizer()


def test_values_of_every_type(tmp_path: Path) -> None:
    numbers = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 10: "<Q", 11: "<q"}
    entries = [entry(f"k{kind}", kind, struct.pack(code, 7)) for kind, code in numbers.items()]
    entries += [
        entry("f", 6, struct.pack("<f", 1e-5)),
        entry("d", 12, struct.pack("<d", 0.1)),
        entry("b", 7, b"\1"),
        entry("s", 8, text("é")),
    ]
    entries += [
        entry("words", 9, struct.pack("<IQ", 8, 2) + text("a") + text("bc")),
        entry("list", 9, struct.pack("<IQ3i", 5, 3, 1, 2, -3)),
    ]
    path = tmp_path / "a.gguf"
    path.write_bytes(gguf_bytes(entries, [tensor("a", (4, 2), 0, 0), tensor("b", (3,), 1, 32)]))
    header = read_header(path)
    assert [header.get(f"k{kind}") for kind in numbers] == [7] * len(numbers)
    assert [header.get(key) for key in ("f", "d", "b", "s", "words", "list", "no")] == [
        1e-5,
        0.1,
        True,
        "é",
        ["a", "bc"],
        [1, 2, -3],
        None,
    ]
    assert header.tensors["a"].shape == (2, 4)
    assert (
        header.tensors["b"].offset - header.tensors["a"].offset,
        header.tensors["b"].nbytes,
        header.tensors["b"].type_name,
    ) == (32, 6, "F16")


BIG = 1 << 62


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it has 0 bytes"),
        (b"GGUF", "it has 4 bytes"),
        (b"ggml" + bytes(40), "starts with b'ggml'"),
        (b"PK\3\4" + bytes(40), "not a GGUF file"),
        (b"FUGG" + bytes(40), "big-endian"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "is big-endian"),
        (gguf_bytes([], [], version=1), "is GGUF version 1"),
        (gguf_bytes([], [], version=99), "is GGUF version 99"),
        (gguf_bytes([], [], counts=(BIG, 0)), "4611686018427387904 tensors are announced"),
        (gguf_bytes([], [], counts=(0, BIG)), "4611686018427387904 values"),
        (gguf_bytes([], [], bytes(4096), counts=(100, 0)), "has 0 dimensions"),
        (gguf_bytes([struct.pack("<Q", BIG) + bytes(20)], []), "a name of 4611686018427387904 bytes"),
        (gguf_bytes([entry("k", 8, struct.pack("<Q", BIG))], []), "bytes are needed"),
        (gguf_bytes([entry("k", 99, bytes(8))], []), "a value of unknown type 99"),
        (gguf_bytes([entry("k", 9, struct.pack("<IQ", 9, 1))], []), "an array of unknown type 9"),
        (
            gguf_bytes([entry("k", 9, struct.pack("<IQ", 8, BIG))], []),
            "an array of 4611686018427387904 items",
        ),
        (
            gguf_bytes([entry("k", 9, struct.pack("<IQ", 0, BIG))], []),
            "an array of 4611686018427387904 items",
        ),
        (gguf_bytes([entry("k", 4, bytes(4))] * 2, []), "'k' appears twice"),
        (gguf_bytes([text(b"\xff") + struct.pack("<IB", 0, 0)], []), "not UTF-8"),
        (gguf_bytes([entry("general.alignment", 4, struct.pack("<I", 0))], []), "alignment 0"),
        (gguf_bytes([entry("general.alignment", 4, struct.pack("<I", 48))], []), "alignment 48"),
        (gguf_bytes([entry("general.alignment", 8, text("32"))], []), "alignment 0"),
        (gguf_bytes([], [tensor(sizes=(1,) * 5)]), "has 5 dimensions"),
        (gguf_bytes([], [tensor(sizes=(BIG, BIG))]), "ends beyond the file"),
        (gguf_bytes([], [tensor(sizes=(0,))]), r"a shape \[0\]"),
        (gguf_bytes([], [tensor(kind=77)]), "unknown type 77"),
        (gguf_bytes([], [tensor(kind=26)]), "is stored as I32, which cannot be read"),
        (gguf_bytes([], [tensor(kind=2, sizes=(33,))]), r"a shape \[33\] that Q4_0 cannot hold"),
        (gguf_bytes([], [tensor(offset=BIG)]), "ends beyond the file"),
        (gguf_bytes([], [tensor(offset=4)]), "ends beyond the file|offset"),
        (gguf_bytes([], [tensor(), tensor()]), "appears twice"),
        (gguf_bytes([], [tensor(sizes=(16,)), tensor("b", offset=32)]), "tensor 'b' overlaps another"),
    ],
)
def test_damaged_headers(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(data)
    with pytest.raises(SourceError, match=message) as caught:
        read_header(path)
    assert "\n" not in str(caught.value)


def test_version_2_is_read_like_version_3(tiny_gguf: Maker, tmp_path: Path) -> None:
    whole = tiny_gguf("llama")
    older = tmp_path / "older.gguf"
    data = whole.read_bytes()
    assert data[4:8] == struct.pack("<I", 3)
    older.write_bytes(data[:4] + struct.pack("<I", 2) + data[8:])
    found = GgufSource(older, "older")
    name = "model.norm.weight"
    assert found.tensors == GgufSource(whole, "whole").tensors
    assert torch.equal(found.read(name), GgufSource(whole, "whole").read(name))


def test_text_that_is_not_utf8_is_found_when_it_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(gguf_bytes([entry("k", 8, text(b"\xff"))], []))
    header = read_header(path)
    with pytest.raises(SourceError, match="not UTF-8"):
        header.get("k")


def test_every_truncation_is_an_error(tiny_gguf: Maker, tmp_path: Path) -> None:
    data = tiny_gguf("llama").read_bytes()
    path = tmp_path / "cut.gguf"
    places = random.Random(0).sample(range(len(data)), 150)
    for place in [*places, len(data) - 1]:
        path.write_bytes(data[:place])
        with pytest.raises(SourceError):
            read_header(path)


@MORE
@given(data=st.data(), family=st.sampled_from(["llama", "gemma3_text", "phi3"]))
def test_mutated_headers_are_an_error_or_sound(
    tiny_gguf: Maker, tmp_path: Path, data: st.DataObject, family: str
) -> None:
    original = tiny_gguf(family).read_bytes()
    end = min(stored.offset for stored in read_header(tiny_gguf(family)).tensors.values())
    changed = bytearray(original)
    for place in data.draw(st.lists(st.integers(0, end - 1), min_size=1, max_size=6)):
        changed[place] = data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]) | st.integers(0, 255))
    path = tmp_path / "mutated.gguf"
    path.write_bytes(changed)
    with suppress(SecateurError):
        open_all(path)


@MORE
@given(st.binary(max_size=300), st.booleans())
def test_random_bytes_are_an_error_or_sound(tmp_path: Path, data: bytes, whole: bool) -> None:
    path = tmp_path / "random.gguf"
    path.write_bytes((b"GGUF\3\0\0\0" if whole else b"") + data)
    with suppress(SecateurError):
        open_all(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda head: head.replace(b"llama.block_count", b"llama.block_kount"),
        lambda head: head.replace(b"smollm", b"smolln"),
    ],
)
def test_settings_that_are_gone(tiny_gguf: Maker, tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(change(tiny_gguf("llama").read_bytes()))
    with pytest.raises(
        SourceError, match=r"'llama.block_count' is missing|cuts text in an unknown way \('smolln'\)"
    ):
        open_all(path)


def test_lying_counts_cost_no_memory(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    path = tmp_path / "a.gguf"
    path.write_bytes(gguf_bytes([entry("k", 9, struct.pack("<IQ", 8, 1 << 40))], [], bytes(1 << 16)))
    with pytest.raises(SourceError):
        read_header(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000
