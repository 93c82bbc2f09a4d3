"""Where text comes from, and how it becomes windows of tokens."""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from secateur.calibrate import builtin_text, hub_datasets
from secateur_runtime.errors import TextError, UsageError

_JOIN = "\n\n"

_CHARACTERS_PER_TOKEN = 5
_UNSURE_WORDS = 64
"""Words before a cut that might be split otherwise if the text continued.

A special token cut in two is the longest case.
"""


@dataclass(frozen=True, slots=True)
class Text:
    """A text and where it came from.

    spec: what the user typed; `read_text(spec)` gives the same text again.
    origin: what was read, in words: a file name, a data set, or the Python release that ships the text.
    """

    text: str
    spec: str
    origin: str

    @property
    def digest(self) -> str:
        """`sha256:<hex>` of the text in UTF-8."""
        return "sha256:" + hashlib.sha256(self.text.encode()).hexdigest()


def read_text(spec: str) -> Text:
    """Read a text.

    spec: a `.txt`, `.raw` or `.jsonl` file (key `text`; texts are joined by a blank line),
    `hf:DATASET:CONFIG:SPLIT` (column `text`, see `hub_datasets.read`), or `builtin` (text that ships with
    Python).

    Raises TextError for a text that is missing, unreadable, malformed or empty, MissingExtraError where `hf:`
    needs the `datasets` package, UsageError for a spec that cannot work.
    """
    if spec == "self":
        raise UsageError(
            "text 'self' is sampled from a model, and none was given here: name a file,"
            " hf:DATASET:CONFIG:SPLIT or builtin"
        )
    if spec == "builtin":
        text, origin = builtin_text.read()
    elif spec.startswith("hf:"):
        text = hub_datasets.read(spec)
        origin = spec.removeprefix("hf:")
    else:
        text = _from_file(Path(spec))
        origin = Path(spec).name
    if not text.strip():
        raise TextError(f"{spec} holds no text")
    return Text(text, spec, origin)


def windows(text: Text, tokenizer: Any, length: int, count: int | None = None) -> Tensor:
    """Tokenize the text once, as a whole and without special tokens, and cut it into windows without overlap.

    tokenizer: a Hugging Face tokenizer.
    length: tokens per window.
    count: how many windows to take from the start; `None` takes every whole window.

    Returns token ids, `[windows, length]`, int64. Raises TextError if the text is too short, UsageError if
    `length` or `count` is below 1.
    """
    if length < 1 or (count is not None and count < 1):
        raise UsageError(
            f"{count if count is not None else 'all'} windows of {length} tokens: both numbers must be at"
            " least 1"
        )
    encoding, sure = encoded(text.text, tokenizer, None if count is None else length * count)
    ids = encoding["input_ids"][:sure]
    whole = len(ids) // length
    needed = 1 if count is None else count
    if whole < needed:
        raise TextError(
            f"{text.spec} holds {len(ids)} tokens, {whole} windows of {length}, and {needed} are needed: "
            "give a longer text, or ask for fewer or shorter windows"
        )
    taken = whole if count is None else count
    return torch.tensor(ids[: taken * length], dtype=torch.int64).reshape(taken, length)


def joined(tokens: Tensor, length: int) -> Tensor:
    """Return consecutive windows joined to longer ones of at most `length` tokens.

    tokens: `[windows, tokens]`. The same number of windows is joined each time, so that all are equally long.
    """
    count, window = tokens.shape
    together = max(
        (number for number in range(1, count + 1) if count % number == 0 and number * window <= length),
        default=1,
    )
    return tokens.reshape(count // together, together * window)


def encoded(text: str, tokenizer: Any, enough: int | None) -> tuple[Any, int]:
    """Return an encoding that holds the text's first `enough` tokens, and how many of its tokens are sure.

    Sure tokens are those that the whole text has too. Where a pre-tokenizer splits the text into words, the
    encoding of a word does not depend on what comes after it. So a part of the text gives the same ids, all
    but those of its last words, for a fraction of the memory and time. Without a pre-tokenizer a part is one
    word, none of which is sure, and the whole text is encoded.
    """
    size = (
        len(text)
        if enough is None or not tokenizer.is_fast
        else _CHARACTERS_PER_TOKEN * (enough + _UNSURE_WORDS)
    )
    while enough is not None and size < len(text):
        encoding = _encode(text[:size], tokenizer)
        words = encoding.word_ids(0)
        sure = bisect_left(words, words[-1] - _UNSURE_WORDS) if words else 0
        if sure >= enough:
            return encoding, sure
        size *= 2
    encoding = _encode(text, tokenizer)
    return encoding, len(encoding["input_ids"])


def _encode(text: str, tokenizer: Any) -> Any:
    # verbose=False: the length warning is about feeding the ids to the model in one piece, which is not done
    # here.
    return tokenizer(text, add_special_tokens=False, return_attention_mask=False, verbose=False)


def calibration_digest(tokens: Tensor) -> str:
    """Return `sha256:<hex>` of token ids of any shape, as little-endian 64-bit integers in order."""
    ids = tokens.detach().cpu().to(torch.int64).contiguous().numpy().astype("<i8")
    return "sha256:" + hashlib.sha256(ids.tobytes()).hexdigest()


def _from_file(path: Path) -> str:
    readers: dict[str, Callable[[Path, str], str]] = {".txt": _plain, ".raw": _plain, ".jsonl": _json_lines}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        hint = "is a folder" if path.is_dir() else "is no .txt, .raw or .jsonl file"
        raise TextError(f"{path} {hint}: name such a file, hf:DATASET:CONFIG:SPLIT or builtin")
    return reader(path, _decode(path))


def _decode(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TextError(f"cannot read text {path}: {error.strerror}") from None
    try:
        # bytes are decoded as they are: translating line ends would change the tokens of a published test
        # file
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise TextError(
            f"{path}, line {line}: not UTF-8 (byte 0x{data[error.start]:02x}); convert the file first"
        ) from None


def _plain(path: Path, content: str) -> str:
    return content


def _json_lines(path: Path, content: str) -> str:
    # not splitlines(): it also splits at U+2028 and its like, which JSON strings may hold
    lines = enumerate(content.split("\n"), 1)
    return _JOIN.join(_json_text(f"{path}, line {number}", line) for number, line in lines if line.strip())


def _json_text(where: str, line: str) -> str:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise TextError(f"{where}: not JSON: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise TextError(f"{where}: not JSON that can be read: {error}") from None
    text = row.get("text") if isinstance(row, dict) else None
    if not isinstance(text, str):
        raise TextError(f"{where}: no string under the key 'text'")
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise TextError(f"{where}: half of a surrogate pair, which is not text")
    return text
