"""Protocol for models that return the log-likelihoods of given tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from secateur.core.progress import Progress


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """A request for the probability of `tokens` after `context`; neither is empty."""

    context: tuple[int, ...]
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Scored:
    """The answer to a `ScoreRequest`.

    logprob: sum of the natural logarithms of the probabilities of the tokens.
    greedy: whether each token was the most likely one.
    """

    logprob: float
    greedy: bool


class Scorer(Protocol):
    """A model that scores given tokens.

    context: the largest number of tokens that it can read at once.
    """

    context: int

    def score(self, rows: Sequence[ScoreRequest], progress: Progress) -> list[Scored]:
        """Return the score of each row, in order, and report each row to `progress`."""
