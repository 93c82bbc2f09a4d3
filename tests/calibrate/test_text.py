"""Reading text files and cutting text into windows of tokens."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from secateur.calibrate.text import Text, calibration_digest, joined, read_text, windows
from secateur_runtime.errors import TextError, UsageError

WORDS = ["a", "b", "c", "d"]


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One token per word; a model length of 8, so that every longer text is over it.

    Special tokens that must not appear.
    """
    vocabulary = {word: index for index, word in enumerate([*WORDS, "[UNK]", "[BOS]"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="[BOS]", model_max_length=8)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer()


def made(words: list[str]) -> Text:
    return Text(" ".join(words), "spec.txt", "spec.txt")


@contextmanager
def one_line(error: type[Exception], *parts: str) -> Iterator[None]:
    with pytest.raises(error) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize("suffix", [".txt", ".raw", ".TXT"])
def test_plain_file_is_read_byte_for_byte(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"text{suffix}"
    path.write_bytes("one\r\ntwo\n\nthrée\n".encode())
    text = read_text(str(path))
    assert text == Text("one\r\ntwo\n\nthrée\n", str(path), path.name)
    assert text.digest == "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1).filter(
        lambda texts: "".join(texts).strip()
    ),
    st.booleans(),
)
def test_json_lines_are_joined_by_blank_lines(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], ascii_only: bool
) -> None:
    path = tmp_path_factory.mktemp("text") / "text.jsonl"
    path.write_bytes(
        "\n".join(json.dumps({"text": text}, ensure_ascii=ascii_only) for text in texts).encode()
    )
    assert read_text(str(path)).text == "\n\n".join(texts)


def test_json_lines_may_have_blank_lines_and_other_keys(tmp_path: Path) -> None:
    path = tmp_path / "text.jsonl"
    path.write_text('\n{"text": "a", "id": 1}\r\n\n{"text": "b"}\n')
    assert read_text(str(path)).text == "a\n\nb"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"text": "b"', "not JSON"),
        ("\ufeff{}", "BOM"),
        ("1" * 5000, "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"body": "b"}', "'text'"),
        ('{"text": 1}', "'text'"),
        ('["text"]', "'text'"),
        ('{"text": "\\ud800"}', "surrogate"),
    ],
)
def test_bad_json_line_is_named(tmp_path: Path, line: str, reason: str) -> None:
    path = tmp_path / "text.jsonl"
    path.write_text(f'{{"text": "a"}}\n\n{line}\n', encoding="utf-8")
    with one_line(TextError, f"{path}, line 3", reason):
        read_text(str(path))


def test_not_utf8_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(b"one\ntwo\nthr\xe9e\n")
    with one_line(TextError, f"{path}, line 3", "0xe9"):
        read_text(str(path))


@pytest.mark.parametrize("content", ["", " \n\t\n"])
@pytest.mark.parametrize("name", ["text.txt", "text.jsonl"])
def test_empty_file(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with one_line(TextError, str(path), "no text"):
        read_text(str(path))


def test_missing_file_folder_and_unknown_suffix(tmp_path: Path) -> None:
    with one_line(TextError, "missing.txt", "No such file"):
        read_text(str(tmp_path / "missing.txt"))
    (tmp_path / "folder.txt").mkdir()
    with one_line(TextError, "folder.txt", "directory"):
        read_text(str(tmp_path / "folder.txt"))
    with one_line(TextError, str(tmp_path), "is a folder"):
        read_text(str(tmp_path))
    with one_line(TextError, "text.csv", ".jsonl"):
        read_text(str(tmp_path / "text.csv"))


def test_self_needs_a_model() -> None:
    with one_line(UsageError, "self", "model"):
        read_text("self")


@given(
    words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=60),
    length=st.integers(1, 12),
    count=st.none() | st.integers(1, 8),
)
def test_windows_are_the_first_tokens_in_order(words: list[str], length: int, count: int | None) -> None:
    whole = len(words) // length
    tokenizer = make_tokenizer()
    if whole < (count or 1):
        with one_line(TextError, "spec.txt", f"{len(words)} tokens", f"{whole} windows of {length}"):
            windows(made(words), tokenizer, length, count)
        return
    tokens = windows(made(words), tokenizer, length, count)
    taken = count or whole
    assert tokens.dtype == torch.int64
    assert tokens.shape == (taken, length)
    assert tokens.flatten().tolist() == [WORDS.index(word) for word in words[: taken * length]]


def byte_level_tokenizer(splitting: bool) -> PreTrainedTokenizerFast:
    """The kind of tokenizer that real models have, trained on little.

    `splitting`: whether it splits text into words.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=splitting)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|begin_of_text|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(
        [*read_text("builtin").text[:20_000].split("\n\n"), "aaaa bbbb  \n\n 1234 aaab"], trainer
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


BYTE_LEVEL = {splitting: byte_level_tokenizer(splitting) for splitting in (True, False)}
PIECES = [
    "a",
    "b",
    "aaab",
    " the",
    " function",
    " ",
    "  ",
    "\n\n",
    "12",
    "don't",
    "é",
    "\u0301",
    "日本語",
    "🙂",
    "<|begin_of_text|>",
    ".",
    "_",
]
LONG = [" function", "<|begin_of_text|>"]
"""Single tokens of many characters, so that the ids asked for lie close to the cut."""


@given(
    text=(
        st.lists(st.sampled_from(PIECES), min_size=1, max_size=60)
        | st.lists(st.sampled_from(LONG), min_size=1, max_size=60)
    ).map(lambda pieces: ("".join(pieces) * 2000)[:2000]),
    splitting=st.booleans(),
    length=st.integers(1, 16),
    count=st.integers(1, 8),
)
def test_tokenising_a_part_gives_the_ids_of_the_whole(
    text: str, splitting: bool, length: int, count: int
) -> None:
    tokenizer = BYTE_LEVEL[splitting]
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if len(ids) >= length * count:
        assert (
            windows(Text(text, "spec", "spec"), tokenizer, length, count).flatten().tolist()
            == ids[: length * count]
        )


def test_a_part_is_enough(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long text costs what its first windows cost."""
    sizes: list[int] = []
    encode = PreTrainedTokenizerFast.__call__

    def counted(self: PreTrainedTokenizerFast, text: str, **options: Any) -> Any:
        sizes.append(len(text))
        return encode(self, text, **options)

    monkeypatch.setattr(PreTrainedTokenizerFast, "__call__", counted)
    windows(made(WORDS * 10_000), tokenizer, 4, 8)
    assert max(sizes) < 1000


@pytest.mark.parametrize(("length", "count"), [(0, None), (-1, 1), (4, 0), (4, -2)])
def test_windows_below_one(tokenizer: Any, length: int, count: int | None) -> None:
    with one_line(UsageError, "at least 1"):
        windows(made(WORDS), tokenizer, length, count)


def test_text_longer_than_the_model_is_no_warning(
    tokenizer: Any, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.WARNING):
        assert windows(made(WORDS * 10), tokenizer, 20).shape == (2, 20)
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


def test_digest_is_of_the_ids_alone() -> None:
    ids = [1, 2, 3, 70_000]
    expected = "sha256:" + hashlib.sha256(b"".join(i.to_bytes(8, "little") for i in ids)).hexdigest()
    tokens = torch.tensor(ids)
    assert calibration_digest(tokens) == expected
    assert calibration_digest(tokens.to(torch.int32).reshape(2, 2)) == expected
    assert calibration_digest(tokens.reshape(2, 2).t().contiguous().t()) == expected
    assert calibration_digest(tokens.flip(0)) != expected


@given(st.integers(1, 12), st.integers(1, 9), st.integers(1, 60))
def test_joined_windows_hold_the_same_tokens_in_order(count: int, window: int, length: int) -> None:
    tokens = torch.arange(count * window).view(count, window)
    longer = joined(tokens, length)
    assert torch.equal(longer.flatten(), tokens.flatten())
    assert longer.shape[1] <= max(length, window)
    assert longer.shape[1] == window or longer.shape[1] % window == 0


def test_four_windows_make_one_where_there_is_room() -> None:
    assert joined(torch.zeros(8, 512), 2048).shape == (2, 2048)
    assert joined(torch.zeros(3, 512), 2048).shape == (1, 1536)
    assert joined(torch.zeros(2, 2048), 512).shape == (2, 2048)
