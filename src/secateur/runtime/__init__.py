"""The interface of everything that runs a model, and the measurements it returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Generated:
    """Generated tokens, with the seconds to the first one and from the first to the last."""

    tokens: tuple[int, ...]
    first: float
    rest: float


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of the process in bytes, as the operating system counts it.

    resident: now. peak: the most so far. files: the part of `resident` that is pages of files.
    """

    resident: int
    peak: int
    files: int


class Backend(Protocol):
    """A loaded model; every call starts from an empty context."""

    name: str

    def logprobs(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Return the log-probabilities (nats) of the token after `tokens`, `[vocab_size]`."""

    def generate(self, prompt: Sequence[int], max_tokens: int) -> Generated:
        """Return `max_tokens` tokens after `prompt`, chosen greedily.

        An end token does not stop generation; llama.cpp never generates one.
        """

    def memory(self) -> Memory:
        """Return the memory of the process that runs the model."""
