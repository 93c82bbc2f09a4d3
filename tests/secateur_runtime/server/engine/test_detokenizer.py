from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("fastapi", reason="pip install 'secateur[serve]'")

from secateur_runtime.server.engine.detokenizer import Writer


def _bytes(tokens: Sequence[int]) -> str:
    """A vocabulary of bytes, the hardest there is."""
    return bytes(tokens).decode("utf-8", "replace")


def _written(text: str, stops: Sequence[str] = (), prompt: str = "") -> tuple[str, list[str]]:
    writer, parts = Writer(_bytes, stops, prompt.encode()), list[str]()
    for token in text.encode():
        parts.append(writer.add(token))
        if writer.stopped:
            break
    return "".join(parts) + writer.finish(), parts


@given(st.text(), st.text())
def test_the_pieces_make_the_text(text: str, prompt: str) -> None:
    assert _written(text, prompt=prompt)[0] == text


@given(
    st.text(alphabet="abé", max_size=30),
    st.lists(st.text(alphabet="abé", min_size=1, max_size=4), max_size=3),
)
def test_nothing_of_a_stop_string_is_told(text: str, stops: list[str]) -> None:
    whole, parts = _written(text, stops)
    ends = [text.find(stop) + len(stop) for stop in stops if stop in text]
    # The first stop string to be complete ends the text, where the earliest that is complete by then begins.
    read = text[: min(ends)] if ends else text
    assert whole == read[: min((read.find(stop) for stop in stops if stop in read), default=len(read))]
    assert "".join(parts) == whole[: len("".join(parts))], "what was told is never taken back"


def test_a_character_is_told_when_it_is_whole() -> None:
    assert _written("a€b")[1] == ["a", "", "", "€", "b"]


def test_a_beginning_of_a_stop_string_is_held_back() -> None:
    assert _written("one stamp", ["stop"])[1] == ["o", "n", "e", " ", "", "", "sta", "m", "p"]


def test_bytes_that_are_no_text_do_not_hold_it_up() -> None:
    writer = Writer(_bytes)
    told = [writer.add(token) for token in [0xE2, 0xE2, 0xE2, 0xE2, 97]]
    assert told[-1] == "a"
    assert "".join(told) == "\ufffd" * 4 + "a"


def test_a_space_at_the_start_of_a_word_stays() -> None:
    words = ["", "▁the", "▁tree"]

    def decode(tokens: Sequence[int]) -> str:
        return "".join(words[token] for token in tokens).replace("▁", " ").removeprefix(" ")

    writer = Writer(decode, prompt=[1])
    assert writer.add(2) == " tree"
