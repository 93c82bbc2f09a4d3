"""The text that ships with Python."""

from __future__ import annotations

import platform
import sys

import pytest

from secateur.calibrate import builtin_text
from secateur.calibrate.text import read_text
from secateur_runtime.errors import TextError


@pytest.fixture(autouse=True)
def _cleaned_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests share the text that was cleaned first."""
    monkeypatch.setattr(builtin_text, "_prose", builtin_text._prose.__wrapped__)  # type: ignore[attr-defined]


def test_is_long_clean_and_the_same_twice() -> None:
    text = read_text("builtin")
    assert text == read_text("builtin")
    assert platform.python_version() in text.origin
    # 64 windows of 512 tokens, at the six characters a token that no tokenizer in use exceeds on English
    # prose
    assert len(text.text) >= 64 * 512 * 6
    assert "::=" not in text.text
    assert ">>>" not in text.text


def test_no_paragraph_twice() -> None:
    paragraphs = builtin_text.read()[0].split("\n\n")
    assert len(paragraphs) == len(set(paragraphs))


def test_python_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(TextError, match="pydoc_data"):
        read_text("builtin")
