"""Jobs of an engine: what a request asks for, and its answer piece by piece."""

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
    """A prompt to continue, and when to end.

    prompt: tokens, at least one. limit: most tokens of the answer. ends: tokens that end the answer and are
    not part of it. stops: strings that do the same. sampling: how tokens are chosen.
    """

    prompt: tuple[int, ...]
    limit: int
    ends: frozenset[int] = frozenset()
    stops: tuple[str, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)


@dataclass(frozen=True, slots=True)
class AnswerPiece:
    """A part of an answer.

    text: new text that is certain. tokens: tokens since the last piece. hidden: number of further tokens
    about which nothing is known.
    finish: why the answer ended, `stop` or `length`; empty before the end.
    """

    text: str
    tokens: tuple[Chosen, ...] = ()
    finish: str = ""
    hidden: int = 0

    @property
    def made(self) -> int:
        """Number of tokens of the piece."""
        return len(self.tokens) + self.hidden


class GenerationJob:
    """One request: the engine hands over pieces, and the client's side awaits them and may cancel."""

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
        """Tokens of the prompt and the longest answer together."""
        return len(self.asked.prompt) + self.asked.limit

    def tell(self, piece: AnswerPiece | RefusedError) -> None:
        """Hand over a piece from any thread; it is lost if the server has stopped."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._pieces.put_nowait, piece)

    async def next(self) -> AnswerPiece:
        """Return the next piece; raises RefusedError if the engine gave up."""
        piece = await self._pieces.get()
        if isinstance(piece, RefusedError):
            raise piece
        return piece


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The figures of an engine for the page and the metrics.

    level, levels: of the ladder, 0 for the whole model. loss: nats per token measured at this level, None if
    unknown.
    weights, cache: bytes that the model takes. process: resident bytes of the process. limit, free: bytes
    of the tightest bound, None if there is none. bound: name of that bound.
    stalled: share of the last ten seconds in which some task waited for memory.
    running, waiting: requests. prompt_tokens, answer_tokens: tokens read and made.
    rate: recent tokens per second.
    shrinks: how often units were removed, so that the level rose. restores: how often units came back.
    put_back: requests that lost their cache for lack of memory.
    decide_seconds, change_seconds: of the last decision and the last change of level.
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
    shrinks: int = 0
    restores: int = 0
    put_back: int = 0
    decide_seconds: float = 0.0
    change_seconds: float = 0.0


class Engine(Protocol):
    """The interface between HTTP and a model: answers several jobs at once."""

    name: str
    context: int
    vocabulary: int

    def submit(self, job: GenerationJob) -> None:
        """Accept a job; raises RefusedError with 413 if it can never fit and 429 if it does not fit now."""

    def cancel(self, job: GenerationJob) -> None:
        """Drop a job and release its memory at once."""

    def state(self) -> State:
        """Return the figures for the page and the metrics."""

    def healthy(self) -> bool:
        """Return whether the engine can still answer."""

    def stop(self) -> None:
        """Stop; unfinished jobs are refused."""
