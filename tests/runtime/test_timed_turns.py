"""Timing: warmed up, in turns, and summed up rightly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from secateur.core.progress import Silent
from secateur.runtime import Generated, Memory
from secateur.runtime.timed_turns import Spread, ratios, take_turns


class Fake:
    """A backend with set times, that writes down when it ran."""

    def __init__(self, name: str, seconds: Sequence[float], log: list[str]) -> None:
        self.name = name
        self._seconds = list(seconds)
        self._log = log

    def logprobs(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        return np.zeros(len(tokens), dtype=np.float32)

    def generate(self, prompt: Sequence[int], max_tokens: int) -> Generated:
        self._log.append(self.name)
        seconds = self._seconds.pop(0)
        return Generated((0,) * max_tokens, seconds, 2 * seconds)

    def memory(self) -> Memory:
        return Memory(1, 2, 0)


def test_turns() -> None:
    """The first run of each warms up and does not count."""
    log: list[str] = []
    backends = [Fake("a", [100, 1, 2, 4], log), Fake("b", [100, 2, 4, 8], log)]
    ours, theirs = take_turns(backends, [[0] * 8, [0] * 8], 5, 3, Silent())
    assert log == ["a", "b", "b", "a", "a", "b", "b", "a"]
    assert ours.first == (1, 2, 4)
    assert ours.prompt == (8, 4, 2)
    assert ours.decode == (2, 1, 0.5)
    assert Spread.of(ours.prompt) == Spread(4, 2, 8)
    assert ratios(ours.decode, theirs.decode) == Spread(2, 2, 2)
