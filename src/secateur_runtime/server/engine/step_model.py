"""The seam below the worker: a model that is run step by step, for several sequences at once, whole or without some of its units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from secateur_runtime.server.engine.sampling import Logits


class SequenceCache(Protocol):
    """Keys and values of one sequence."""

    @property
    def bytes(self) -> int:
        """What it takes."""

    def close(self) -> object:
        """Give its memory back."""


class StepModel(Protocol):
    """A model that can do without some of its units, named as in its ladder. One thread uses it."""

    name: str
    context: int
    vocabulary: int

    @property
    def units(self) -> Sequence[str]:
        """What is gone."""

    @property
    def weights(self) -> int:
        """Bytes that its weights take without them."""

    def set_units(self, units: Sequence[str]) -> object:
        """Do without these units and no others.

        What went is given back to the system, what comes back is read again.
        """

    def open(self, limit: int) -> SequenceCache:
        """Return an empty cache for at most `limit` tokens; it stays right whatever goes or comes back."""

    def prefill(self, tokens: Sequence[int], cache: Any) -> Logits:
        """Add tokens to a cache; return the logits after the last one, `[vocab_size]`."""

    def decode(self, tokens: Sequence[int], caches: Sequence[Any]) -> Sequence[Logits]:
        """Add one token to each cache; return the logits after each, `[vocab_size]` every one."""

    def give_back(self) -> None:
        """Return freed memory to the system."""
