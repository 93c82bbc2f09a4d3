"""A text span with its tokens under one tokenizer, to compare models of different tokenizers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Passage:
    """Token ids of a model, of which it predicts those after the first `context`.

    units: tokens of the reference that spell the predicted text; size: its bytes in UTF-8.
    """

    ids: tuple[int, ...]
    context: int
    units: int
    size: int
