"""The thread that owns a model and runs all requests together, one token at a time."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable

import psutil

from secateur_runtime.server.engine.admission import Limits
from secateur_runtime.server.engine.detokenizer import Decode
from secateur_runtime.server.engine.job import GenerationJob, State
from secateur_runtime.server.engine.memory_controller import Load, MemoryController
from secateur_runtime.server.engine.sequence import RunningSequence
from secateur_runtime.server.engine.step_model import StepModel
from secateur_runtime.server.engine.throughput import Rate
from secateur_runtime.server.refusals import RefusedError

_IDLE = 0.1
"""Seconds between readings of memory while there is no request."""
_SPARE = 1.5
"""Multiple of the headroom that must be free before another request joins."""


class Worker:
    """An Engine over a model that is run step by step.

    Requests join and leave between steps. A request that would not fit to its end at any acceptable level
    waits. If memory shrinks so far that running requests no longer fit, the youngest is put back into the
    queue and read again later, so that none is lost.
    """

    def __init__(
        self, model: StepModel, controller: MemoryController, decode: Decode, limits: Limits
    ) -> None:
        self.name = model.name
        self.context = model.context
        self.vocabulary = model.vocabulary
        self._model = model
        self._controller = controller
        self._decode = decode
        self._limits = limits
        self._changed = threading.Condition()
        self._inbox: list[GenerationJob] = []
        self._waiting: deque[RunningSequence] = deque()
        self._running: list[RunningSequence] = []
        self._stopping = False
        self._failed = False
        self._prompt_tokens = 0
        self._put_back = 0
        self._answers = Rate()
        self._process = psutil.Process()
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)
        self._thread.start()

    def submit(self, job: GenerationJob) -> None:
        """Accept a job; raises RefusedError with 413 if it can never fit and 429 if too many wait."""
        if not self._controller.fits([Load(1, job.total)], self._controller.most):
            raise RefusedError(
                413,
                f"{job.total} tokens do not fit in memory at any level that answers well enough: shorten the"
                " prompt or max_tokens",
            )
        with self._changed:
            if self._stopping or self._failed:
                raise RefusedError(503, "the server is stopping")
            if len(self._inbox) + len(self._waiting) >= self._limits.queue:
                raise RefusedError(429, f"{self._limits.queue} requests wait already: try again later")
            self._inbox.append(job)
            self._changed.notify()

    def cancel(self, job: GenerationJob) -> None:
        """Drop a job between two steps."""
        job.cancelled.set()
        with self._changed:
            self._changed.notify()

    def state(self) -> State:
        """Return the figures for the page and the metrics."""
        controller = self._controller
        tightest = controller.sensed.tightest
        return State(
            level=len(self._model.units),
            levels=controller.levels,
            loss=controller.loss,
            weights=self._model.weights,
            cache=self._cache(),
            process=self._process.memory_info().rss,
            limit=tightest.limit if tightest else None,
            free=tightest.free if tightest else None,
            bound=tightest.name if tightest else "",
            stalled=controller.sensed.stalled,
            running=len(self._running),
            waiting=len(self._waiting) + len(self._inbox),
            prompt_tokens=self._prompt_tokens,
            answer_tokens=self._answers.total,
            rate=self._answers.now(),
            shrinks=controller.shrinks,
            restores=controller.restores,
            put_back=self._put_back,
            decide_seconds=controller.decide_seconds,
            change_seconds=controller.change_seconds,
        )

    def healthy(self) -> bool:
        """Return whether the thread is alive and has not failed."""
        return self._thread.is_alive() and not self._failed

    def stop(self) -> None:
        """Stop the thread; unfinished jobs are refused."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        try:
            while not self._stopping:
                self._tick()
        except BaseException:
            self._failed = True
            raise
        finally:
            words = "the model failed: see the server's log" if self._failed else "the server is stopping"
            self._end_all(RefusedError(500 if self._failed else 503, words))

    def _tick(self) -> None:
        """Run one step: update queue and level, read a chunk of one prompt, make a token of all others."""
        self._collect()
        self._controller.look(self._cache())
        self._settle()
        self._admit()
        started = time.perf_counter()
        worked = self._prefill()
        worked = self._step() or worked
        if worked:
            self._controller.latency = 0.8 * self._controller.latency + 0.2 * (time.perf_counter() - started)
            self._leave()
            return
        with self._changed:
            if not self._inbox and not self._stopping:
                self._changed.wait(_IDLE)

    def _collect(self) -> None:
        with self._changed:
            fresh = self._inbox
            self._inbox = []
            self._waiting.extend(RunningSequence(job, self._decode) for job in fresh)
        now = time.monotonic()
        for each in (*self._waiting, *self._running):
            if each.job.cancelled.is_set():
                each.finished = True
            elif now > each.job.deadline:
                each.refuse(RefusedError(504, "the answer took longer than the server allows"))
        for each in self._waiting:
            if not each.finished and not each.made and now - each.job.arrived > self._limits.wait:
                each.refuse(
                    RefusedError(429, "there was not enough free memory for this request: try again later")
                )
        self._leave()

    def _leave(self) -> None:
        """Remove finished sequences and release their memory."""
        finished = [each for each in (*self._running, *self._waiting) if each.finished]
        if not finished:
            return
        self._running = [each for each in self._running if not each.finished]
        self._waiting = deque(each for each in self._waiting if not each.finished)
        self._free(finished)

    def _free(self, which: Iterable[RunningSequence]) -> None:
        for each in which:
            each.drop_cache()
        self._model.give_back()
        self._controller.look(self._cache(), now=True)

    def _settle(self) -> None:
        """Set the level that memory allows.

        Running requests are put back, the youngest first, while they do not fit even at the smallest level.
        """
        while self._running and not self._controller.fits(
            self._loads(), self._controller.available(self._cache())
        ):
            youngest = self._running.pop()
            self._waiting.appendleft(youngest)
            self._put_back += 1
            self._free([youngest])
        self._controller.settle(self._loads(), self._cache())

    def _loads(self) -> list[Load]:
        return [each.load for each in self._running]

    def _admit(self) -> None:
        while self._waiting and len(self._running) < self._limits.batch:
            loads = [*self._loads(), self._waiting[0].load]
            # With more to spare than running requests need, so that it is not put back at once.
            if not self._controller.fits(loads, self._controller.available(self._cache(), _SPARE)):
                return
            self._running.append(self._waiting.popleft())
            self._controller.settle(loads, self._cache())

    def _prefill(self) -> bool:
        """Read a chunk of the oldest prompt that is not read to its end."""
        unread = next((each for each in self._running if not each.ready), None)
        if unread is None:
            return False
        fresh = unread.made == 0
        made = unread.made
        count = unread.prefill(self._model, self._limits.chunk)
        self._prompt_tokens += count if fresh else 0
        self._answers.add(unread.made - made)
        return True

    def _step(self) -> bool:
        """Make one token for every request whose prompt is read."""
        ready = [each for each in self._running if each.ready and not each.finished]
        if not ready:
            return False
        logits = self._model.decode(
            [each.tokens[-1] for each in ready], [each.cache for each in ready if each.cache is not None]
        )
        made = sum(each.made for each in ready)
        for each, row in zip(ready, logits, strict=True):
            each.take(row)
        self._answers.add(sum(each.made for each in ready) - made)
        return True

    def _cache(self) -> int:
        return sum(cache.bytes for each in tuple(self._running) if (cache := each.cache) is not None)

    def _end_all(self, error: RefusedError) -> None:
        with self._changed:
            jobs = self._inbox
            self._inbox = []
        for job in jobs:
            job.tell(error)
        for each in (*self._running, *self._waiting):
            each.refuse(error)
            each.drop_cache()
        self._running = []
        self._waiting = deque()
