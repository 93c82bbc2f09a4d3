"""Build a server and run it."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import socket
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from secateur.core.process_memory import give_back
from secateur.core.progress import Progress
from secateur.model.handle import open_model
from secateur.tensors.source import Source
from secateur_runtime.cores import check_threads
from secateur_runtime.errors import MissingExtraError, SourceError, UsageError, nearest
from secateur_runtime.sensors import Senses, Sensor
from secateur_runtime.sensors.cgroup import Cgroup
from secateur_runtime.sensors.machine import MachineMemory, ProcessBudget
from secateur_runtime.sensors.pressure import MACHINE
from secateur_runtime.server.engine.admission import Limits
from secateur_runtime.server.engine.job import Engine
from secateur_runtime.server.engine.memory_controller import ControllerSettings

BACKENDS = ("elastic", "native", "llamacpp")
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """What to serve and how.

    model: reference as the user typed it. backend: one of BACKENDS. name: name of the model for clients.
    host, port: address to listen on; port 0 takes a free one.
    key: API key that clients must send, empty for none. open: whether other machines may connect without one.
    usual: most tokens of an answer if the request does not say. seconds: that an answer may take.
    budget: bytes for this process, None for no limit. threads: of the model. context: most tokens of a
    request in llama.cpp. body: most bytes of a request. limits: on requests. care: settings of the memory
    controller.
    elasticity: options of `make_elastic` for backends with levels; its `kind` is the type of native weights.
    """

    model: str
    backend: str = "elastic"
    name: str = ""
    host: str = "127.0.0.1"
    port: int = 8080
    key: str = ""
    open: bool = False
    usual: int = 512
    seconds: float = 600.0
    budget: int | None = None
    threads: int = 1
    context: int = 4096
    body: int = 2_000_000
    limits: Limits = field(default_factory=Limits)
    care: ControllerSettings = field(default_factory=ControllerSettings)
    elasticity: Any = None


def serve(how: Serving, progress: Progress, ready: Callable[[str], None]) -> None:
    """Serve until interrupted; call `ready` with the address once requests are answered.

    Raises MissingExtraError without the packages of the server, UsageError for invalid options, SourceError
    if the address is not available.
    """
    require_server()
    _check(how)
    listening = _listen(how.host, how.port)
    with listening:
        from secateur_runtime.server.http.request_guard import RequestGuard

        gate = RequestGuard(key=how.key, local=how.host in _LOOPBACK, body=how.body)
        app = build(how, gate, progress)
        host = f"[{how.host}]" if ":" in how.host else how.host
        _run(app, gate, listening, lambda: ready(f"http://{host}:{listening.getsockname()[1]}"))


def require_server() -> None:
    """Raise MissingExtraError unless the packages of the server are installed."""
    if any(importlib.util.find_spec(name) is None for name in ("fastapi", "uvicorn", "prometheus_client")):
        raise MissingExtraError(
            "serving needs FastAPI, uvicorn and prometheus_client: pip install 'secateur[serve]'"
        )


def build(how: Serving, gate: Any, progress: Progress) -> Any:
    """Return the application; its engine is running."""
    from secateur_runtime.server.http.app import Service, make_app
    from secateur_runtime.server.http.openai_requests import RequestReader, decoder

    model = open_model(how.model)
    tokenizer = model.source.tokenizer()
    decode = decoder(tokenizer)
    ends = ends_of(model.source, tokenizer)
    # Reading a vocabulary leaves three times its size in the heap.
    give_back()
    engine = _llamacpp(how, model) if how.backend == "llamacpp" else _elastic(how, model, decode, progress)
    name = how.name or Path(how.model).name.removesuffix(".gguf")
    reader = RequestReader(
        tokenizer,
        names=[name],
        ends=ends,
        context=engine.context,
        vocabulary=engine.vocabulary,
        usual=how.usual,
    )
    return make_app(Service(engine, reader, name, how.seconds), gate)


def _elastic(how: Serving, model: Any, decode: Any, progress: Progress) -> Engine:
    import torch

    from secateur.adapt.serving.elastic_backend import NATIVE, Elasticity, make_elastic, warm
    from secateur_runtime.cache_folder import cache_folder
    from secateur_runtime.server.engine.batch_engine import Worker
    from secateur_runtime.server.engine.memory_controller import MemoryController

    torch.set_num_threads(how.threads)
    elasticity = how.elasticity or Elasticity(
        folder=cache_folder(), threads=how.threads, kind=NATIVE if how.backend == "native" else ""
    )
    stepped, choices, policy = make_elastic(model, elasticity, progress)
    warm(stepped)
    return Worker(
        stepped, MemoryController(stepped, choices, policy, senses(how.budget), how.care), decode, how.limits
    )


def _llamacpp(how: Serving, model: Any) -> Engine:
    from secateur.adapt.serving.llamacpp_backend import LlamaEngine

    path = getattr(model.source, "path", None)
    if path is None or Path(path).suffix != ".gguf":
        raise UsageError(
            f"llama.cpp runs GGUF files, and {how.model} is none: `secateur export {how.model} -o model.gguf`"
            " writes one"
        )
    vocabulary = model.graph.vocab_size
    context = min(how.context, int(model.source.config["max_position_embeddings"]))
    return LlamaEngine(
        str(path),
        context=context,
        vocabulary=vocabulary,
        threads=how.threads,
        limits=how.limits,
        senses=senses(how.budget),
    )


def senses(budget: int | None) -> Senses:
    """Return all memory sensors of this machine, and a budget in bytes for this process if given."""
    group = Cgroup()
    sensors: list[Sensor] = [group, MachineMemory(), *([ProcessBudget(budget)] if budget is not None else [])]
    return Senses(sensors, [path for path in (MACHINE, group.pressure_file()) if path])


def ends_of(source: Source, tokenizer: Any) -> frozenset[int]:
    """Return the tokens that end an answer.

    They come from the config, the tokenizer and the generation config.
    """
    found = [source.config.get("eos_token_id"), tokenizer.eos_token_id]
    with tempfile.TemporaryDirectory() as folder, suppress(FileNotFoundError, ValueError):
        source.copy_companions(Path(folder))
        found.append(
            json.loads((Path(folder) / "generation_config.json").read_text(encoding="utf-8")).get(
                "eos_token_id"
            )
        )
    flat = [token for each in found for token in (each if isinstance(each, list) else [each])]
    return frozenset(token for token in flat if isinstance(token, int))


def _check(how: Serving) -> None:
    if how.backend not in BACKENDS:
        raise UsageError(
            f"unknown backend {how.backend!r}{nearest(how.backend, BACKENDS)}; known: {', '.join(BACKENDS)}"
        )
    check_threads(how.threads)
    if how.host not in _LOOPBACK and not how.key and not how.open:
        raise UsageError(
            f"--host {how.host} lets other machines in: give an API key (--api-key-file, or"
            " SECATEUR_API_KEY), or say --no-key"
        )


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise SourceError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; choose another --port or --host"
        ) from None


def _run(app: Any, gate: Any, listening: socket.socket, ready: Callable[[], None]) -> None:
    import uvicorn

    from secateur_runtime.server.http.request_guard import protocol

    config = uvicorn.Config(
        app,
        http=protocol(gate),
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=5,
        server_header=False,
    )

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            ready()

    # uvicorn shuts down in order, and then raises the interrupt again.
    with suppress(KeyboardInterrupt):
        asyncio.run(Server(config).serve([listening]))
