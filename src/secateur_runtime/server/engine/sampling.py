"""Choose a token from logits with the sampling options of a request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.float32]
_FEW = 256
"""Number of likeliest tokens to search first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are chosen.

    temperature: divisor of the logits; 0 takes the likeliest token. top_p: probability mass of the likeliest
    tokens to choose among. seed: None for a different choice every time.
    frequency: subtracted from the logit of a token for each time it is in the answer.
    presence: subtracted once.
    bias: token -> number added to its logit.
    logprobs: number of likeliest tokens reported with each token; None reports no probabilities.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    frequency: float = 0.0
    presence: float = 0.0
    bias: Mapping[int, float] = field(default_factory=dict)
    logprobs: int | None = None


@dataclass(frozen=True, slots=True)
class Chosen:
    """A chosen token.

    logprob: natural logarithm of its probability in the distribution of the model, None if not asked for.
    top: the likeliest tokens, each with its log probability.
    """

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class Sampler:
    """Chooses the tokens of one answer, which depend on their logits and the seed only."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._draw = np.random.default_rng(sampling.seed)
        self._counts: Counter[int] = Counter()

    def choose(self, logits: Logits) -> Chosen:
        """Return the next token; logits: `[vocab_size]`, not modified."""
        scores = self._weighed(logits)
        token = int(scores.argmax()) if self._sampling.temperature == 0 else self._drawn(scores)
        self._counts[token] += 1
        return (
            Chosen(token) if self._sampling.logprobs is None else told(logits, token, self._sampling.logprobs)
        )

    def _weighed(self, logits: Logits) -> NDArray[np.float64]:
        scores = logits.astype(np.float64)
        if self._sampling.frequency or self._sampling.presence:
            for token, count in self._counts.items():
                scores[token] -= self._sampling.frequency * count + self._sampling.presence
        for token, bias in self._sampling.bias.items():
            scores[token] += bias
        return scores

    def _drawn(self, scores: NDArray[np.float64]) -> int:
        scaled = (scores - scores.max()) / self._sampling.temperature
        chances = np.exp(scaled)
        order: NDArray[np.int64] | None = None
        if self._sampling.top_p < 1:
            order = _within(chances, self._sampling.top_p)
            chances = chances[order]
        sums = np.cumsum(chances)
        place = int(np.searchsorted(sums, self._draw.random() * sums[-1], side="right"))
        place = min(place, len(sums) - 1)
        return int(order[place]) if order is not None else place


def _within(chances: NDArray[np.float64], share: float) -> NDArray[np.int64]:
    """Return the likeliest tokens whose probabilities first sum to at least `share`."""
    total = chances.sum()
    count = _FEW
    while True:
        order = likeliest(chances, count)
        shares = np.cumsum(chances[order]) / total
        if shares[-1] >= share or count >= len(chances):
            return order[: int(np.searchsorted(shares, share)) + 1]
        count *= 8


def likeliest(values: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Return the indices of the `count` largest values, in descending order; ties keep their order."""
    places = np.arange(len(values))
    if 0 < count < len(values):
        # Sorting tens of thousands takes as long as one token of a small model.
        places = np.flatnonzero(values >= np.partition(values, -count)[-count])
    return places[np.argsort(-values[places], kind="stable")][:count] if count else places[:0]


def told(logits: Logits, token: int, count: int) -> Chosen:
    """Return a token with its log probability and those of the `count` likeliest tokens."""
    exact = logits.astype(np.float64)
    most = exact.max()
    logprobs = exact - (most + np.log(np.exp(exact - most).sum()))
    best = likeliest(logprobs, count)
    return Chosen(
        token, float(logprobs[token]), tuple((int(index), float(logprobs[index])) for index in best)
    )


def ids_below(bias: Mapping[int, float], vocabulary: int) -> Sequence[int]:
    """Return the tokens of `bias` that are outside a vocabulary of this size."""
    return [token for token in bias if not 0 <= token < vocabulary]
