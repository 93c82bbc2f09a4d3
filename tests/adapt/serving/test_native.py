"""The kernels behind the server.

Several streams, one that is cancelled, and memory that shrinks under them and comes back.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.adapt.serving.test_launch import PROMPT, make_ladder
from tests.conftest import Maker
from tests.secateur_runtime.server.conftest import listening

from secateur.adapt.serving.elastic_backend import Elasticity, ElasticModel, make_elastic
from secateur.core.progress import Silent
from secateur.model.handle import ModelHandle, open_model
from secateur_runtime.sensors import MemoryBound, Sensed
from secateur_runtime.server.engine import memory_controller
from secateur_runtime.server.engine.admission import Limits
from secateur_runtime.server.engine.batch_engine import Worker
from secateur_runtime.server.engine.memory_controller import ControllerSettings, Load, MemoryController
from secateur_runtime.server.http.app import Service, make_app
from secateur_runtime.server.http.openai_requests import RequestReader, decoder
from secateur_runtime.server.http.request_guard import RequestGuard

TOKENS = 120
BODY: dict[str, Any] = {
    "model": "tiny",
    "max_tokens": TOKENS,
    "temperature": 0,
    "stream": True,
    "logprobs": 0,
    "logit_bias": {"2": -100},
}


class Served:
    """A server over a model in the kernels, and the memory that it thinks there is.

    squeezed: the limit from the tenth look on at which three answers or more are under way; 0 for never. The
    worker counts them itself, so the answers cannot be over before.
    """

    def __init__(
        self, opened: ModelHandle, model: ElasticModel, controller: MemoryController, worker: Worker
    ) -> None:
        self.model, self.controller, self.worker, self.limit = model, controller, worker, 1 << 40
        self.squeezed = 0
        self.together = 0
        reader = RequestReader(
            opened.source.tokenizer(),
            names=["tiny"],
            ends=frozenset({2}),
            context=model.context,
            vocabulary=model.vocabulary,
            usual=16,
        )
        self.app = make_app(Service(worker, reader, "tiny", 60), RequestGuard())


@pytest.fixture
def served(tiny: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    # Every step looks at memory, and takes long enough for all clients to come.
    monkeypatch.setattr(memory_controller, "_EVERY", 0.0)
    folder = tiny("llama", dtype="bfloat16")
    path, _ = make_ladder(folder, tmp_path)
    opened = open_model(str(folder))
    model, choices, policy = make_elastic(
        opened, Elasticity(folder=tmp_path, ladder=path, kind="int8"), Silent()
    )
    held: list[Served] = []

    def senses() -> Sensed:
        time.sleep(0.005)
        caches = model._model.caches
        taken = model.weights + sum(cache.bytes for cache in caches)
        if held and held[0].squeezed and len(caches) >= 3:
            held[0].together += 1
            if held[0].together == 10:
                held[0].limit = held[0].squeezed
        return Sensed((MemoryBound("test", held[0].limit if held else 1 << 40, taken),))

    controller = MemoryController(
        model, choices, policy, senses, ControllerSettings(headroom=0, least=0, restore_delay=0.05)
    )
    worker = Worker(model, controller, decoder(opened.source.tokenizer()), Limits(chunk=3))
    held.append(Served(opened, model, controller, worker))
    yield held[0]
    worker.stop()


def _asked(address: str, prompt: list[int], found: list[list[float]], stop: int = TOKENS) -> None:
    """Read a stream as far as `stop` tokens; then go away."""
    logprobs: list[float] = []
    found.append(logprobs)
    with httpx.stream(
        "POST", f"{address}/v1/completions", json={**BODY, "prompt": prompt}, timeout=30
    ) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                logprobs += (json.loads(line[6:])["choices"][0]["logprobs"] or {"token_logprobs": []})[
                    "token_logprobs"
                ]
            if len(logprobs) >= stop:
                return


def test_streams_under_memory_that_shrinks_and_comes_back(served: Served) -> None:
    found: list[list[float]] = []
    with listening(served.app) as address:
        whole = served.model.weights
        # The whole model with all three answers to their ends is a little too much.
        loads = [Load(len(PROMPT) - place, len(PROMPT) - place + TOKENS) for place in range(3)]
        served.squeezed = int(served.controller._choices.needs(served.controller._seen(loads, 0))[0]) - 1000
        clients = [
            threading.Thread(target=_asked, args=(address, PROMPT[place:], found)) for place in range(3)
        ]
        clients.append(threading.Thread(target=_asked, args=(address, PROMPT, found, 5)))
        for client in clients:
            client.start()
        _until(lambda: served.controller.shrinks)
        served.limit = 1 << 40
        for client in clients:
            client.join(60)
        _until(lambda: served.model.weights == whole)
        state = httpx.get(f"{address}/state").json()
    assert sorted(len(each) for each in found)[1:] == [TOKENS] * 3
    assert (state["level"], state["running"], state["cache"]) == (0, 0, 0)
    assert state["shrinks"] >= 1
    assert served.model._model.caches == ()


def _until(come: Any) -> None:
    end = time.monotonic() + 30
    while not come():
        assert time.monotonic() < end
        time.sleep(0.005)
