"""Requests together: what each is answered, whoever joins, leaves, or takes the memory away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import httpx
import pytest
from tests.secateur_runtime.server.conftest import Served, listening
from tests.secateur_runtime.server.fakes import PER_TOKEN, WEIGHTS, continued
from tests.secateur_runtime.server.http_requests import PLAIN, refused, wait_for

from secateur_runtime.server.engine.admission import Limits
from secateur_runtime.server.engine.job import AnswerPiece, GenerationJob, GenerationRequest
from secateur_runtime.server.engine.sampling import Sampling
from secateur_runtime.server.refusals import RefusedError

GREEDY = Sampling(temperature=0)


def _asked(prompt: Sequence[int], limit: int) -> GenerationRequest:
    return GenerationRequest(prompt=tuple(prompt), limit=limit, sampling=GREEDY)


async def _tokens(job: GenerationJob) -> list[int]:
    found: list[int] = []
    while True:
        piece: AnswerPiece = await asyncio.wait_for(job.next(), 60)
        found += [chosen.token for chosen in piece.tokens]
        if piece.finish:
            return found


async def _closed(served: Served) -> None:
    """Wait until every cache is given back, which happens after the last token is told."""
    for _ in range(500):
        if all(cache.closed for cache in served.model.opened):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("a cache is open still")


async def _running(served: Served, count: int) -> None:
    """Wait until so many requests are under way."""
    for _ in range(2000):
        if served.worker.state().running == count:
            return
        await asyncio.sleep(0.005)
    raise AssertionError("they do not run")


async def _left_out(served: Served, count: int) -> None:
    """Wait until so many units are out of the model."""
    for _ in range(2000):
        if len(served.model.units) == count:
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it does not go so far")


async def _whole(served: Served) -> None:
    """Wait until nothing is left out any more."""
    for _ in range(2000):
        if not served.model.units:
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it does without something still")


def _all(
    served: Served, asked: Sequence[GenerationRequest], during: Callable[[], None] | None = None
) -> list[list[int]]:
    async def run() -> list[list[int]]:
        jobs = [GenerationJob(each, seconds=100) for each in asked]
        for job in jobs:
            served.worker.submit(job)
        waiting = asyncio.gather(*map(_tokens, jobs))
        for _ in range(2000):
            if during is None or served.worker.state().running == len(asked):
                break
            await asyncio.sleep(0.005)
        if during is not None:
            during()
        return await waiting

    return asyncio.run(run())


PROMPTS = [[5 + index, 9, 30 + index] * (2 + 5 * index) for index in range(6)]


def test_together_as_alone(make: Callable[..., Served]) -> None:
    # An answer must take longer than all of them take to be asked for.
    served = make(seconds=0.005, limits=Limits(batch=4, chunk=7))
    found = _all(served, [_asked(prompt, 20) for prompt in PROMPTS])
    assert found == [continued(prompt, 20) for prompt in PROMPTS]
    assert max(served.model.batches) == 4
    assert max(served.model.chunks) == 7
    asyncio.run(_closed(served))


def test_memory_that_shrinks_takes_levels_and_loses_nobody(make: Callable[..., Served]) -> None:
    served = make(seconds=0.005)
    positions = sum(len(prompt) + 40 for prompt in PROMPTS)

    def squeeze() -> None:
        served.senses.limit = WEIGHTS[2] + PER_TOKEN * (positions + len(PROMPTS))

    assert _all(served, [_asked(prompt, 40) for prompt in PROMPTS], squeeze) == [
        continued(prompt, 40) for prompt in PROMPTS
    ]
    assert 2 in served.model.levels
    assert 3 not in served.model.levels
    assert served.worker.state().put_back == 0


def test_where_no_level_does_the_youngest_are_put_back_and_finish_later(make: Callable[..., Served]) -> None:
    served = make(seconds=0.005)

    def squeeze() -> None:
        served.senses.limit = WEIGHTS[3] + PER_TOKEN * 150

    assert _all(served, [_asked(prompt, 40) for prompt in PROMPTS], squeeze) == [
        continued(prompt, 40) for prompt in PROMPTS
    ]
    assert served.worker.state().put_back > 0
    assert 3 in served.model.levels


@pytest.mark.parametrize("policy", ["greedy", "cost-aware"])
def test_nobody_is_answered_beyond_the_bound_on_loss(make: Callable[..., Served], policy: str) -> None:
    """The last level loses 1.0, which is too much.

    Whoever does not fit at the one before it waits, and is answered whole later.
    """
    served = make(seconds=0.005, most_loss=0.5, policy=policy)
    answered: list[int] = []
    decode = served.model.decode

    def watched(tokens: Sequence[int], caches: Sequence[Any]) -> Sequence[Any]:
        answered.append(len(served.model.units))
        return decode(tokens, caches)

    served.model.decode = watched  # type: ignore[method-assign]

    async def run() -> None:
        jobs = [GenerationJob(_asked([5, index], 100), seconds=60) for index in range(2)]
        for job in jobs:
            served.worker.submit(job)
        await _running(served, 2)
        # Room for one at the second level, and for both at the last.
        served.senses.limit = WEIGHTS[2] + PER_TOKEN * 110
        waiting = [asyncio.ensure_future(_tokens(job)) for job in jobs]
        await _running(served, 1)
        # Room for nobody: the model goes as far down as it must, and answers nobody.
        served.senses.limit = WEIGHTS[3] + PER_TOKEN * 20
        await _running(served, 0)
        await _left_out(served, 3)
        count = len(answered)
        await asyncio.sleep(0.1)
        assert len(answered) == count
        served.senses.limit = 1 << 40
        assert await asyncio.gather(*waiting) == [continued([5, index], 100) for index in range(2)]

    asyncio.run(run())
    assert served.worker.state().put_back == 2
    assert max(answered) == 2


def test_a_request_that_fits_beyond_the_bound_only_is_refused(make: Callable[..., Served]) -> None:
    served = make(most_loss=0.5)
    served.senses.limit = WEIGHTS[3] + PER_TOKEN * 120

    async def run() -> None:
        with pytest.raises(RefusedError, match="at any level that answers well enough") as refused:
            served.worker.submit(GenerationJob(_asked([5] * 50, 50), seconds=30))
        assert refused.value.status == 413

    served.worker._controller.most = 0
    served.worker._controller.look(0, now=True)
    asyncio.run(run())


def test_the_level_comes_back_when_there_is_room_for_a_while(make: Callable[..., Served]) -> None:
    # An answer must take longer than the time between two looks at memory.
    served = make(seconds=0.005)
    served.senses.limit = WEIGHTS[3] + PER_TOKEN * 30
    _all(served, [_asked([5, 6], 20)])
    assert 3 in served.model.levels
    # The worker looks at any moment: there must be none with room and without the stall.
    served.senses.stalled = 0.5
    served.senses.limit = 1 << 40
    _all(served, [_asked([5, 6], 20)])
    asyncio.run(asyncio.sleep(0.4))
    assert len(served.model.units) == 3, "not while something waits for memory"
    served.senses.stalled = 0.0
    asyncio.run(_whole(served))
    assert served.worker.state().restores == 1


def test_the_policy_none_looks_at_nothing(make: Callable[..., Served]) -> None:
    served = make(policy="none")
    served.senses.limit = 1
    assert _all(served, [_asked([5, 6], 10)]) == [continued([5, 6], 10)]
    assert served.model.levels == []


def test_what_never_fits_and_what_does_not_now(make: Callable[..., Served]) -> None:
    served = make(seconds=0.01, limits=Limits(queue=2, wait=0.3))
    served.senses.limit = WEIGHTS[3] + PER_TOKEN * 150
    served.worker._controller.most = served.senses.limit

    async def run() -> None:
        with pytest.raises(RefusedError, match="do not fit in memory at any level") as never:
            served.worker.submit(GenerationJob(_asked([5] * 150, 50), seconds=30))
        assert never.value.status == 413
        jobs = [GenerationJob(_asked([5, index], 100), seconds=30) for index in range(4)]
        served.worker.submit(jobs[0])
        await _running(served, 1)
        for job in jobs[1:3]:
            served.worker.submit(job)
        with pytest.raises(RefusedError, match="2 requests wait already") as full:
            served.worker.submit(jobs[3])
        assert full.value.status == 429
        with pytest.raises(RefusedError, match="not enough free memory") as waited:
            await _tokens(jobs[1])
        assert waited.value.status == 429
        assert await _tokens(jobs[0]) == continued([5, 0], 100)

    asyncio.run(run())


def test_a_cancelled_request_frees_its_memory_at_once(make: Callable[..., Served]) -> None:
    served = make(seconds=0.01)

    async def run() -> None:
        job, other = (
            GenerationJob(_asked([5, 6], 200), seconds=30),
            GenerationJob(_asked([7, 8], 30), seconds=30),
        )
        served.worker.submit(job)
        served.worker.submit(other)
        await job.next()
        served.worker.cancel(job)
        await _closed(served)
        assert len(served.model.opened[0].tokens) < 150
        assert await _tokens(other) == continued([7, 8], 30)

    asyncio.run(run())


def test_an_answer_that_takes_too_long(make: Callable[..., Served]) -> None:
    served = make(seconds=0.02)

    async def run() -> None:
        job = GenerationJob(_asked([5, 6], 200), seconds=0.2)
        served.worker.submit(job)
        with pytest.raises(RefusedError, match="longer than the server allows") as late:
            await _tokens(job)
        assert late.value.status == 504
        await _closed(served)

    asyncio.run(run())


def test_stopping_refuses_what_is_under_way(make: Callable[..., Served]) -> None:
    served = make(seconds=0.02)

    async def run() -> None:
        job = GenerationJob(_asked([5, 6], 200), seconds=30)
        served.worker.submit(job)
        await job.next()
        await asyncio.to_thread(served.worker.stop)
        with pytest.raises(RefusedError, match="stopping"):
            await _tokens(job)
        with suppress(RefusedError):
            served.worker.submit(job)
        assert served.worker.state().waiting == 0

    asyncio.run(run())
    assert not served.worker.healthy()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_model_that_fails(make: Callable[..., Served]) -> None:
    served = make()
    served.model.broken = True
    with listening(served.app) as address, httpx.Client(base_url=address) as client:
        answer = client.post("/v1/completions", json={**PLAIN, "max_tokens": 5})
        assert "the model failed" in refused(answer, 500)
        wait_for(lambda: not served.worker._thread.is_alive())
        refused(client.get("/health"), 503)
        refused(client.post("/v1/completions", json=PLAIN), 503)
