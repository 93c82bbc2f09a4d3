"""A client that disconnects frees the memory of its request."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest
from tests.secateur_runtime.server.conftest import Served, listening
from tests.secateur_runtime.server.http.conftest import GATE
from tests.secateur_runtime.server.http_requests import PLAIN, wait_for


def test_a_client_that_goes_away_in_the_middle(make: Callable[..., Served]) -> None:
    served = make(gate=GATE, seconds=0.01)
    with listening(served.app, GATE) as address, httpx.Client(base_url=address, timeout=10) as client:
        with client.stream(
            "POST", "/v1/completions", json={**PLAIN, "max_tokens": 200, "stream": True}
        ) as answer:
            next(answer.iter_bytes())
        wait_for(lambda: served.worker.state().running == 0)
        assert served.model.opened[-1].closed
        assert len(served.model.opened[-1].tokens) < 150
        assert client.get("/health").status_code == 200


def test_a_client_that_goes_away_before_the_answer(make: Callable[..., Served]) -> None:
    served = make(gate=GATE, seconds=0.01)
    with listening(served.app, GATE) as address, httpx.Client(base_url=address) as client:
        with pytest.raises(httpx.ReadTimeout):
            client.post("/v1/completions", json={**PLAIN, "max_tokens": 200}, timeout=0.3)
        wait_for(lambda: served.worker.state().running == 0)
        assert len(served.model.opened[-1].tokens) < 150
        assert client.post("/v1/completions", json=PLAIN).status_code == 200
