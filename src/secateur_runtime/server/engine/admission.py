"""How much a server takes on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on what is under way.

    batch: requests answered at once. queue: requests that wait. chunk: tokens of a prompt that are read
    between two tokens of the others.
    wait: seconds after which a request that has not begun is refused.
    """

    batch: int = 16
    queue: int = 64
    chunk: int = 128
    wait: float = 60.0
