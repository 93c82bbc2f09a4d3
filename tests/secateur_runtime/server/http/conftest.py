"""A server with a strict guard, and a client for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.secateur_runtime.server.conftest import Served, listening, serve

from secateur_runtime.server.http.request_guard import RequestGuard

GATE = RequestGuard(body=5000, arrival=0.5, stall=0.5)


@pytest.fixture(scope="module")
def guarded(tokenizer: Any) -> Iterator[Served]:
    made = serve(tokenizer, gate=GATE)
    yield made
    made.worker.stop()


@pytest.fixture(scope="module")
def http(guarded: Served) -> Iterator[httpx.Client]:
    with listening(guarded.app, GATE) as address, httpx.Client(base_url=address, timeout=10) as made:
        yield made
