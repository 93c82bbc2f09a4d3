from __future__ import annotations

import pytest

from secateur.core.pattern import Pattern
from secateur_runtime.errors import UsageError


@pytest.mark.parametrize(
    ("text", "ratio", "n", "m"),
    [("0.5", 0.5, 0, 0), ("50%", 0.5, 0, 0), (" 0 ", 0, 0, 0), ("2:4", 0.5, 2, 4), ("3:4", 0.25, 3, 4)],
)
def test_parses(text: str, ratio: float, n: int, m: int) -> None:
    assert Pattern.parse(text) == Pattern(ratio, n, m)


@pytest.mark.parametrize(
    "text", ["", "half", "1", "-0.1", "100%", "nan", "inf", "4:2", "2:2", "0:4", "2:4:8", "5%%"]
)
def test_refuses(text: str) -> None:
    with pytest.raises(UsageError):
        Pattern.parse(text)


@pytest.mark.parametrize("text", ["0.5", "0.333", "2:4", "8:16", "0"])
def test_text_round_trips(text: str) -> None:
    assert str(Pattern.parse(text)) == text
    assert Pattern.parse(str(Pattern.parse(text))) == Pattern.parse(text)


def test_check_wants_whole_groups() -> None:
    Pattern.parse("2:4").check("q", 8)
    Pattern.parse("0.5").check("q", 7)
    with pytest.raises(UsageError, match="q: its width 6"):
        Pattern.parse("2:4").check("q", 6)


@pytest.mark.parametrize(
    ("text", "numel", "kept"),
    [("0.5", 10, 5), ("0.3", 10, 7), ("0", 3, 3), ("2:4", 16, 8), ("1:4", 16, 4), ("0.99", 1, 0)],
)
def test_kept(text: str, numel: int, kept: int) -> None:
    assert Pattern.parse(text).kept(numel) == kept
