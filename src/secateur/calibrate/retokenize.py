"""Re-encode windows of one tokenizer with another, so that both predict the same characters."""

from __future__ import annotations

import json
import math
import unicodedata
from functools import cached_property
from typing import Any

from torch import Tensor

from secateur.calibrate.text import Text, encoded
from secateur.core.text_span import Passage
from secateur_runtime.errors import UsageError

Span = tuple[int, int]
_SHOWN = 24


class Speller:
    """The tokenizer of the model `name`, with the characters that every token stands for.

    Raises UsageError for a tokenizer without offsets: one without `tokenizer.json`.
    """

    def __init__(self, name: str, tokenizer: Any) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise UsageError(
                f"the tokenizer of {name} does not tell where its tokens lie in a text: save it once with"
                " transformers' fast tokenizer"
            )
        self.name = name
        # What is added after a text may also trim what its tokens stand for.
        self._body = json.loads(tokenizer.backend_tokenizer.to_str()) | {
            "post_processor": None,
            "truncation": None,
            "padding": None,
        }
        self._whole = _fast(self._body)
        self._anchor = self.ids("a", begins=True)

    @cached_property
    def _part(self) -> Any:
        return _fast(_unprefixed(self._body))

    def spans(self, text: str, tokens: Tensor) -> list[Span]:
        """Return the characters `[start, stop)` of each of the text's first tokens, and of the next one.

        tokens: ids of any shape, in order. Raises UsageError if the text has other tokens.
        """
        wanted = tokens.flatten().tolist()
        (found,) = encoded(text, self._whole, len(wanted) + 1)[0].encodings
        if found.ids[: len(wanted)] != wanted:
            raise UsageError(
                f"the tokenizer of {self.name} gives other tokens where it tells where they lie in the text:"
                " its figures have no unit"
            )
        return list(found.offsets[: len(wanted) + 1])

    def ids(self, text: str, *, begins: bool = False) -> tuple[int, ...]:
        """Return the ids of a part of a text.

        begins: the part is the beginning of the text; other parts get no space in front, which some
        tokenizers add.
        """
        return tuple(
            (self._whole if begins else self._part)(text, add_special_tokens=False, verbose=False)[
                "input_ids"
            ]
        )

    def check(self, ids: tuple[int, ...], text: str) -> None:
        """Raise UsageError unless `ids` spell `text` in Unicode's composed form.

        A tokenizer may lack letters, or change them.
        """
        # Some decoders take a leading space for the one that was put before the text: a letter stands before
        # it here.
        spelt = _composed(self._decoded(self._anchor + ids))
        meant = _composed(self._decoded(self._anchor) + text)
        if spelt != meant:
            near = next(
                (place for place, (one, other) in enumerate(zip(spelt, meant, strict=False)) if one != other),
                min(len(spelt), len(meant)),
            )
            raise UsageError(
                f"{self.name} cannot spell {meant[near : near + _SHOWN]!r} of the text, so no likelihood of"
                " the same characters can be had"
            )

    def _decoded(self, ids: tuple[int, ...]) -> str:
        return str(self._whole.backend_tokenizer.decode(ids, skip_special_tokens=False))


def side_by_side(
    text: Text, tokens: Tensor, reference: Speller, model: Speller
) -> list[tuple[Passage, Passage]]:
    """Return each window as the reference tokenizes it and as the model does.

    tokens: ids of the reference, `[windows, length]`, from the start of `text`.

    The first token's text is context, the rest is predicted; the model's tokenizer encodes the two
    separately. A token may end within a character (some of its bytes). Where the first one does, the tokens
    that end that character are context too; where the last one does, the tokens that begin that character are
    left out. So the predicted text is whole characters, the same for both, and its units are the tokens of
    the reference that spell it. Context that begins within a character is given to the model from the start
    of that character. Raises UsageError where a window holds no whole character to predict, or a tokenizer
    cannot spell the text.
    """
    spans = reference.spans(text.text, tokens)
    ends = _ends(spans)
    length = tokens.shape[1]
    pairs = []
    for number, window in enumerate(tokens.tolist()):
        first = number * length
        whole = [place for place in range(first + 1, first + length + 1) if place in ends]
        if len(whole) < 2:
            raise UsageError(
                f"a window of {length} tokens of {reference.name} may hold no whole character to predict:"
                " give a larger --window"
            )
        begin = spans[first][0]
        start = ends[whole[0]]
        stop = ends[whole[-1]]
        context = text.text[begin:start]
        predicted = text.text[start:stop]
        units = whole[-1] - whole[0]
        size = len(predicted.encode())
        reference.check(tuple(window[whole[0] - first : whole[-1] - first]), predicted)
        known = model.ids(context, begins=begin == 0)
        asked = model.ids(predicted)
        model.check(model.ids(context), context)
        model.check(asked, predicted)
        theirs = Passage(tuple(window[: whole[-1] - first]), whole[0] - first, units, size)
        pairs.append((theirs, Passage(known + asked, len(known), units, size)))
    return pairs


def _ends(spans: list[Span]) -> dict[int, int]:
    """Return the number of characters for each number of tokens that ends with a whole character."""
    found = dict[int, int]()
    reached = 0
    for number, (start, stop) in enumerate(spans, 1):
        reached = max(reached, stop)
        following = spans[number][0] if number < len(spans) else math.inf
        if start < stop and reached <= following:
            found[number] = reached
    return found


def _unprefixed(part: Any) -> Any:
    """Return a description of a tokenizer, or a part of one, without the steps that add a space in front."""
    if isinstance(part, list):
        return [_unprefixed(step) for step in part if not _prepends(step)]
    if not isinstance(part, dict):
        return part
    changed = {
        name: None if _prepends(value) else _unprefixed(value)
        for name, value in part.items()
        if name not in ("model", "added_tokens")
    }
    never = {
        name: value
        for name, value in (("add_prefix_space", False), ("prepend_scheme", "never"))
        if name in part
    }
    return part | changed | never


def _prepends(step: Any) -> bool:
    return isinstance(step, dict) and step.get("type") == "Prepend"


def _fast(body: dict[str, Any]) -> Any:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(body)))


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)
