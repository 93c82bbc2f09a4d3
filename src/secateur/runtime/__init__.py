"""What a model can be run on: the seam, and what it tells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Generated:
    """Tokens and when they came: seconds until the first one, and from the first to the last."""

    tokens: tuple[int, ...]
    first: float
    rest: float


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of the process as the operating system counts them.

    now, at most, and how much of now are pages of files.
    """

    resident: int
    peak: int
    files: int


class Backend(Protocol):
    """A loaded model; every call starts from an empty context."""

    name: str

    def logprobs(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Return the natural logarithm of the probability of each next token, `[vocab_size]`, after `tokens`."""

    def generate(self, prompt: Sequence[int], max_tokens: int) -> Generated:
        """Return `max_tokens` tokens after `prompt`, each the likeliest.

        An end token does not end them (llama.cpp leaves those out).
        """

    def memory(self) -> Memory:
        """Return what the process holds."""
