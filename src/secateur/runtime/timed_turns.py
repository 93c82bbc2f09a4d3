"""Time backends against each other.

After a warm-up they take turns, so that other load on the machine falls on all alike.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from secateur.core.progress import Progress
from secateur.runtime import Backend, Generated


@dataclass(frozen=True, slots=True)
class Spread:
    """Median of repeated figures, with the lowest and the highest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarise `values`."""
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True, slots=True)
class Speed:
    """Figures of one backend, one per repetition.

    Tokens per second of prompt and of answer, and seconds to the first token.
    """

    prompt: tuple[float, ...]
    decode: tuple[float, ...]
    first: tuple[float, ...]


def take_turns(
    backends: Sequence[Backend],
    prompts: Sequence[Sequence[int]],
    tokens: int,
    repeat: int,
    progress: Progress,
) -> list[Speed]:
    """Return the speed of each backend, measured in turns.

    prompts: token ids for each backend. tokens: length of each answer, at least 2. repeat: counted turns,
    after one that warms up.
    """
    progress.start("bench", (repeat + 1) * len(backends))
    runs: list[list[Generated]] = [[] for _ in backends]
    for turn in range(repeat + 1):
        # In turn from either end, so that none always runs on a machine that the other has warmed.
        for index in sorted(range(len(backends)), reverse=turn % 2 == 1):
            run = backends[index].generate(prompts[index], tokens)
            progress.step(backends[index].name)
            if turn:
                runs[index].append(run)
    return [_speed(own, len(prompt), tokens) for own, prompt in zip(runs, prompts, strict=True)]


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Return the spread of the ratio of figures measured in the same turn."""
    return Spread.of([left / right for left, right in zip(ours, theirs, strict=True)])


def _speed(runs: Sequence[Generated], prompt: int, tokens: int) -> Speed:
    return Speed(
        tuple(prompt / run.first for run in runs),
        tuple((tokens - 1) / run.rest for run in runs),
        tuple(run.first for run in runs),
    )
