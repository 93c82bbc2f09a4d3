"""The seam between whatever can say how likely tokens are and the stages that ask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from secateur.core.progress import Progress


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """Tokens whose probability after `context` is asked for; neither is empty."""

    context: tuple[int, ...]
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Scored:
    """Summed natural logarithm of the probabilities of the tokens asked for, and whether each was the likeliest."""

    logprob: float
    greedy: bool


class Scorer(Protocol):
    """A model that says how likely given tokens are.

    context: most tokens that it can read at once.
    """

    context: int

    def score(self, rows: Sequence[ScoreRequest], progress: Progress) -> list[Scored]:
        """Return an answer for each row, in order; `progress` is told of each row."""
