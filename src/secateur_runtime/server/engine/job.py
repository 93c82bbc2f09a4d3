"""A request on its way through an engine: what is asked, and what comes back piece by piece."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from dataclasses import dataclass, field
from typing import Protocol

from secateur_runtime.server.engine.sampling import Chosen, Sampling
from secateur_runtime.server.refusals import RefusedError

_NUMBERS = itertools.count(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """What an engine is asked: tokens to go on from, and when to end.

    prompt: tokens, at least one. limit: most tokens of answer. ends: tokens that end it, not told. stops:
    texts that end it, not told.
    """

    prompt: tuple[int, ...]
    limit: int
    ends: frozenset[int] = frozenset()
    stops: tuple[str, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)


@dataclass(frozen=True, slots=True)
class AnswerPiece:
    """A part of an answer.

    text: what is certain of it by now. tokens: those since the last piece; hidden: how many more there were,
    of which nothing is known.
    finish: at the end why it ended, `stop` or `length`.
    """

    text: str
    tokens: tuple[Chosen, ...] = ()
    finish: str = ""
    hidden: int = 0

    @property
    def made(self) -> int:
        """How many tokens it took."""
        return len(self.tokens) + self.hidden


class GenerationJob:
    """One request. The engine tells pieces; whoever asked awaits them, and may cancel."""

    def __init__(self, asked: GenerationRequest, *, seconds: float) -> None:
        self.number = next(_NUMBERS)
        self.asked = asked
        self.arrived = time.monotonic()
        self.deadline = self.arrived + seconds
        self.cancelled = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._pieces: asyncio.Queue[AnswerPiece | RefusedError] = asyncio.Queue()

    @property
    def total(self) -> int:
        """Tokens that the prompt and the longest answer have together."""
        return len(self.asked.prompt) + self.asked.limit

    def tell(self, piece: AnswerPiece | RefusedError) -> None:
        """Hand a piece on, from whatever thread; one to a server that has stopped is lost."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._pieces.put_nowait, piece)

    async def next(self) -> AnswerPiece:
        """Return the next piece; raises RefusedError where the engine gave up."""
        piece = await self._pieces.get()
        if isinstance(piece, RefusedError):
            raise piece
        return piece


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What an engine is doing, for the page and the metrics; bytes, or seconds.

    level, levels: of the ladder, 0 the whole model; loss: nats per token measured at this level, None where
    not known.
    weights, cache: what the model takes; process: what the system counts as resident; limit, free: of the
    tightest bound, None where there is none.
    bound: whose that is. stalled: share of the last ten seconds. decisions: how often the level went down and
    up, and requests were put back.
    rates: tokens per second lately.
    """

    level: int = 0
    levels: int = 1
    loss: float | None = None
    weights: int = 0
    cache: int = 0
    process: int = 0
    limit: int | None = None
    free: int | None = None
    bound: str = ""
    stalled: float = 0.0
    running: int = 0
    waiting: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    rate: float = 0.0
    downs: int = 0
    ups: int = 0
    put_back: int = 0
    decide_seconds: float = 0.0
    change_seconds: float = 0.0


class Engine(Protocol):
    """Answers jobs, several at once; the seam below the protocol of HTTP."""

    name: str
    context: int
    vocabulary: int

    def submit(self, job: GenerationJob) -> None:
        """Take a job in; raises RefusedError with 413 where it never fits and 429 where it does not now."""

    def cancel(self, job: GenerationJob) -> None:
        """Let go of a job, and of its memory, at once."""

    def state(self) -> State:
        """Return what it is doing."""

    def healthy(self) -> bool:
        """Return whether it can still answer."""

    def stop(self) -> None:
        """End; jobs under way are refused."""
