"""Protocols for a model that the worker runs step by step, several sequences at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from secateur_runtime.server.engine.sampling import Logits


class SequenceCache(Protocol):
    """Keys and values of one sequence."""

    @property
    def bytes(self) -> int:
        """Bytes that the cache takes."""

    def close(self) -> object:
        """Release the memory of the cache."""


class StepModel(Protocol):
    """A model that can run without some of its units, named as in its ladder. One thread uses it."""

    name: str
    context: int
    vocabulary: int

    @property
    def units(self) -> Sequence[str]:
        """The removed units."""

    @property
    def weights(self) -> int:
        """Bytes of the weights without the removed units."""

    def set_units(self, units: Sequence[str]) -> object:
        """Remove exactly these units.

        Memory of removed units is released to the system; restored units are read again.
        """

    def open(self, limit: int) -> SequenceCache:
        """Return an empty cache for at most `limit` tokens, which stays valid when units change."""

    def prefill(self, tokens: Sequence[int], cache: Any) -> Logits:
        """Add tokens to a cache; return the logits after the last one, `[vocab_size]`."""

    def decode(self, tokens: Sequence[int], caches: Sequence[Any]) -> Sequence[Logits]:
        """Add one token to each cache; return the logits after each, `[vocab_size]`."""

    def give_back(self) -> None:
        """Return freed memory to the system."""
