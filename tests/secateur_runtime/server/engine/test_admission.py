"""The default limits, and what each of them bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from tests.secateur_runtime.server.conftest import Served

from secateur_runtime.server.engine.admission import Limits
from secateur_runtime.server.engine.job import GenerationJob, GenerationRequest
from secateur_runtime.server.refusals import RefusedError


def test_by_default_more_requests_may_wait_than_run() -> None:
    limits = Limits()
    assert limits.queue > limits.batch > 0
    assert limits.chunk > 0
    assert limits.wait > 0


def test_an_empty_queue_takes_nothing(make: Callable[..., Served]) -> None:
    served = make(limits=Limits(queue=0))

    async def run() -> None:
        with pytest.raises(RefusedError, match="0 requests wait already") as full:
            served.worker.submit(GenerationJob(GenerationRequest(prompt=(5,), limit=1), seconds=5))
        assert full.value.status == 429

    asyncio.run(run())
