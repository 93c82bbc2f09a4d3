"""Limits on the requests that a server accepts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on running and waiting requests.

    batch: most requests answered at once. queue: most requests that wait. chunk: tokens of a prompt that are
    read between two tokens of the other requests.
    wait: seconds after which a request that has not started is refused.
    """

    batch: int = 16
    queue: int = 64
    chunk: int = 128
    wait: float = 60.0
