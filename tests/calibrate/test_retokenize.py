"""Windows as two tokenizers read them: the same characters are predicted, and they are all that can be."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from tests.conftest import Maker
from tests.vocabularies import fewer_tokens
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from secateur.calibrate.retokenize import Speller, side_by_side
from secateur.calibrate.text import Text, windows
from secateur.core.text_span import Passage
from secateur_runtime.errors import UsageError

_BYTES = {letter: byte for byte, letter in bytes_to_unicode().items()}
PIECES = [
    "Pruning removes ",
    "the parts",
    " ",
    "\n\n",
    "2023",
    "木",
    "森林",
    "🌳",
    "👩‍👩‍👧",
    "é",
    "e\u0301",
    "한국어",
    "<|im_start|>",
]
TEXTS = st.lists(
    st.sampled_from(PIECES) | st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
    min_size=1,
    max_size=30,
).map("".join)


def fast(backend: Tokenizer) -> Any:
    return PreTrainedTokenizerFast(tokenizer_object=backend)


@pytest.fixture(scope="module")
def whole(tiny: Maker) -> Any:
    return AutoTokenizer.from_pretrained(tiny("llama"))


@pytest.fixture(scope="module")
def body(whole: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(whole.backend_tokenizer.to_str())
    return found


@pytest.fixture(scope="module")
def smaller(body: dict[str, Any]) -> Any:
    return part(body, 20)


@pytest.fixture(scope="module")
def spellers(whole: Any, smaller: Any) -> tuple[Speller, Speller]:
    return Speller("reference", whole), Speller("model", smaller)


def part(body: dict[str, Any], merges: int, without: str = "") -> Any:
    return fast(Tokenizer.from_str(json.dumps(fewer_tokens(body, merges, without=without)[0])))


def spelt(tokenizer: Any, ids: tuple[int, ...]) -> bytes:
    """The bytes of tokens, one by one: what they stand for by the definition of a byte-level vocabulary."""
    special = set(tokenizer.get_added_vocab())
    tokens = tokenizer.convert_ids_to_tokens(list(ids))
    return b"".join(
        token.encode() if token in special else bytes(_BYTES[letter] for letter in token) for token in tokens
    )


def is_text(found: bytes) -> bool:
    try:
        return bool(found.decode()) or not found
    except UnicodeDecodeError:
        return False


def aligned(text: str, length: int, reference: Any, model: Any) -> list[tuple[Passage, Passage]]:
    read = Text(text, "spec", "origin")
    tokens = windows(read, reference, length)
    return side_by_side(read, tokens, Speller("reference", reference), Speller("model", model))


@given(text=TEXTS, length=st.integers(2, 16))
@example(text="木木木木木木木🌳🌳🌳🌳", length=5)
@example(text="the parts 🌳", length=2)
def test_both_predict_the_same_whole_characters(
    whole: Any, smaller: Any, spellers: tuple[Speller, Speller], text: str, length: int
) -> None:
    read, ids = Text(text, "spec", "origin"), whole(text, add_special_tokens=False)["input_ids"]
    assume(len(ids) >= length)
    try:
        pairs = side_by_side(read, windows(read, whole, length), *spellers)
    except UsageError as error:
        assert "no whole character" in str(error)
        return
    before = b""
    for number, (theirs, ours) in enumerate(pairs):
        window = tuple(ids[number * length : (number + 1) * length])
        ends = [place for place in range(1, length + 1) if is_text(before + spelt(whole, window[:place]))]
        assert theirs.ids == window[: ends[-1]]
        assert theirs.context == ends[0]
        predicted = spelt(whole, theirs.ids[theirs.context :])
        assert spelt(smaller, ours.ids[ours.context :]) == predicted
        assert is_text(predicted)
        assert spelt(smaller, ours.ids[: ours.context]).endswith(spelt(whole, theirs.ids[: theirs.context]))
        assert theirs.units == ours.units == ends[-1] - ends[0]
        assert theirs.size == ours.size == len(predicted)
        before += spelt(whole, window)


@pytest.mark.parametrize("kind", ["trims", "prefixes"])
def test_spaces_that_a_tokenizer_trims_or_adds_are_not_predicted(
    whole: Any, smaller: Any, body: dict[str, Any], kind: str
) -> None:
    backend = Tokenizer.from_str(json.dumps(body))
    if kind == "trims":
        backend.post_processor = processors.ByteLevel(trim_offsets=True)
    else:
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    text = "Pruning removes\n\n the  parts of a network\n" * 3
    for reference, model in ((fast(backend), smaller), (whole, fast(backend))):
        for theirs, ours in aligned(text, 7, reference, model):
            predicted = spelt(reference, theirs.ids[theirs.context :])
            assert spelt(model, ours.ids[ours.context :]) == predicted
            assert len(predicted) == ours.size
            assert theirs.units == 6 or kind == "prefixes"


def sentencepiece(letters: str) -> Any:
    """A tokenizer of single letters and bytes that puts a space before every text, as Llama 2's does."""
    vocabulary = {"<unk>": 0, **{f"<0x{byte:02X}>": byte + 1 for byte in range(256)}}
    vocabulary |= {letter: 257 + place for place, letter in enumerate(letters)}
    backend = Tokenizer(
        models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return fast(backend)


def test_tokenizers_that_begin_with_a_space_and_fall_back_on_bytes(whole: Any) -> None:
    other, text = sentencepiece("▁aehprstunig"), "the parts 木 in the sun, naïve 🌳 e\u0301 " * 4
    for theirs, ours in aligned(text, 9, whole, other):
        assert [
            token for token in other.convert_ids_to_tokens(list(ours.ids[ours.context :])) if token == "<unk>"
        ] == []
        predicted = spelt(whole, theirs.ids[theirs.context :]).decode()
        assert ours.size == len(predicted.encode())
        assert len(ours.ids) - ours.context == sum(
            1 if letter in " aehprstunig" else len(letter.encode()) for letter in predicted
        )
    for theirs, ours in aligned(text, 9, other, whole):
        predicted = spelt(whole, ours.ids[ours.context :]).decode()
        assert theirs.units == sum(
            1 if letter in " aehprstunig" else len(letter.encode()) for letter in predicted
        )


def test_a_text_that_a_tokenizer_cannot_spell_is_one_line(whole: Any, body: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"^model cannot spell 'q the parts.*' of the text") as caught:
        aligned("the parts q the parts " * 3, 12, whole, part(body, 20, without="q"))
    assert "\n" not in str(caught.value)


def test_a_slow_tokenizer_is_one_line() -> None:
    with pytest.raises(UsageError, match="the tokenizer of it does not tell where its tokens lie"):
        Speller("it", object())


def test_a_window_without_a_whole_character_is_one_line(whole: Any, smaller: Any) -> None:
    with pytest.raises(UsageError, match="a window of 2 tokens of reference may hold no whole character"):
        aligned("🌳🌳", 2, whole, smaller)
