"""A server over the fake model, in this process and on a real port of this machine."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="pip install 'secateur[serve]'")

from tests.conftest import Maker
from tests.secateur_runtime.server.fakes import VOCABULARY, FakeModel, FakeSenses, fake_choices

from secateur_runtime.policies import make_policy
from secateur_runtime.server.engine.admission import Limits
from secateur_runtime.server.engine.batch_engine import Worker
from secateur_runtime.server.engine.detokenizer import Decode
from secateur_runtime.server.engine.memory_controller import ControllerSettings, MemoryController
from secateur_runtime.server.http.app import Service, make_app
from secateur_runtime.server.http.openai_requests import RequestReader, decoder
from secateur_runtime.server.http.request_guard import RequestGuard, protocol


@dataclass
class Served:
    """A server under test, and what it is made of."""

    app: Any
    model: FakeModel
    senses: FakeSenses
    worker: Worker
    reader: RequestReader
    decode: Decode


@pytest.fixture(scope="session")
def tokenizer(tiny: Maker) -> Any:
    from secateur.model.formats.open_source import open_source

    return open_source(str(tiny("llama"))).tokenizer()


def serve(
    tokenizer: Any,
    *,
    gate: RequestGuard | None = None,
    limits: Limits | None = None,
    policy: str = "greedy",
    seconds: float = 0.0,
    patience: float = 60.0,
    most_loss: float = 1.0,
) -> Served:
    """Return a server over a new fake model; seconds: that a step of it takes.

    patience: seconds that an answer may take.
    """
    model = FakeModel(seconds=seconds)
    senses = FakeSenses()
    choices = fake_choices()
    senses.model = model
    controller = MemoryController(
        model,
        choices,
        make_policy(policy, choices),
        senses,
        ControllerSettings(
            headroom=0, least=0, restore_delay=0.1, watch=policy != "none", most_loss=most_loss
        ),
    )
    reader = RequestReader(
        tokenizer, names=["fake"], ends=frozenset({2}), context=model.context, vocabulary=VOCABULARY, usual=16
    )
    worker = Worker(model, controller, decoder(tokenizer), limits or Limits())
    app = make_app(Service(worker, reader, "fake", patience), gate or RequestGuard())
    return Served(app, model, senses, worker, reader, decoder(tokenizer))


@pytest.fixture
def make(tokenizer: Any) -> Iterator[Callable[..., Served]]:
    """Make servers; their threads end with the test."""
    made: list[Served] = []

    def making(**options: Any) -> Served:
        made.append(serve(tokenizer, **options))
        return made[-1]

    yield making
    for served in made:
        served.worker.stop()


@contextmanager
def listening(app: Any, gate: RequestGuard | None = None) -> Iterator[str]:
    """Serve an application on a free port of this machine; yield its address."""
    import uvicorn

    with socket.create_server(("127.0.0.1", 0)) as opened:
        config = uvicorn.Config(
            app, http=protocol(gate or RequestGuard()), log_level="critical", timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([opened])))
        thread.start()
        try:
            yield f"http://127.0.0.1:{opened.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)


@pytest.fixture(scope="module")
def served(tokenizer: Any) -> Iterator[Served]:
    made = serve(tokenizer)
    yield made
    made.worker.stop()
