"""`secateur serve`: answer requests by OpenAI's protocol, and give memory back while doing so."""

from __future__ import annotations

import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from secateur.cli.shared import options, printing
from secateur.cli.shared.option_groups import with_options
from secateur.core.progress import Silent
from secateur_runtime.errors import UsageError

if TYPE_CHECKING:
    from secateur.adapt.serving.elastic_backend import Elasticity
    from secateur_runtime.server.engine.memory_controller import ControllerSettings

_POLICY = (
    "Who decides what goes: auto (cost-aware where the ladder is priced, else greedy), or one of"
    " {policies}; none keeps all and watches no memory."
)
_BACKEND = (
    "elastic (torch) or native (the C kernels), whose level changes while they serve, or llamacpp for a GGUF"
    " file."
)
_MAX_LOSS = (
    "Most that pruning may cost, in nats a token above the whole model on the ladder's text. Requests that"
    " would cost more wait; inf for no bound."
)
_KEY = "SECATEUR_API_KEY"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """What runs the model, and where clients find it."""

    backend: Annotated[str, typer.Option("--backend", help=_BACKEND)] = "elastic"
    kind: Annotated[
        str, typer.Option("--type", help="native: weights in bf16 (the default), int8, int4 or f32.")
    ] = ""
    host: Annotated[
        str,
        typer.Option(
            "--host", help="Address to listen on; another than this machine's own needs a key, or --no-key."
        ),
    ] = "127.0.0.1"
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0 takes a free one.")] = 8080
    name: Annotated[
        str, typer.Option("--name", help="What clients call the model; MODEL's own name if not given.")
    ] = ""

    def weights(self) -> str:
        """Return the type of weights in the kernels, empty for another backend than native.

        Raises UsageError for a type that another backend is to run in.
        """
        from secateur.adapt.serving.elastic_backend import NATIVE

        if self.kind and self.backend != "native":
            raise UsageError(
                f"--type {self.kind} is for --backend native: {self.backend} runs the model as it is stored"
            )
        return (self.kind or NATIVE) if self.backend == "native" else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ElasticOptions:
    """What a model gives up while it serves, and who decides."""

    ladder: Annotated[
        Optional[Path],
        typer.Option("--ladder", help="Ladder of `secateur adapt rank`; made once and kept if not given."),
    ] = None
    policy: Annotated[str, typer.Option("--policy", help=_POLICY)] = "auto"
    policy_file: Annotated[
        Optional[Path], typer.Option("--policy-file", help="Network of `secateur adapt train`, for dqn.")
    ] = None
    kv: Annotated[str, typer.Option("--kv", help="Keys and values: f32, f16, or bf16 in torch.")] = "f32"

    def elasticity(self, *, folder: Path | None, threads: int, kind: str) -> Elasticity:
        """Return how the model is made elastic.

        folder: of ladders and sorted weights, None for the usual one. threads: of the model.
        kind: type of the weights in the kernels.
        """
        from secateur.adapt.serving.elastic_backend import Elasticity
        from secateur_runtime.cache_folder import cache_folder

        return Elasticity(
            folder=folder or cache_folder(),
            ladder=self.ladder,
            policy=self.policy,
            policy_file=self.policy_file,
            kv=self.kv,
            threads=threads,
            kind=kind,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryOptions:
    """How much memory the server may hold, and when it gives some back."""

    memory_budget: Annotated[
        str,
        typer.Option(
            "--memory-budget",
            help="Memory for this process, such as 900M; the machine and its groups bound it too.",
        ),
    ] = ""
    headroom: Annotated[
        float, typer.Option("--headroom", min=0, max=0.9, help="Share of every limit that is kept free.")
    ] = 0.05
    calm: Annotated[
        float,
        typer.Option(
            "--calm", min=0, help="Seconds of sufficient free memory before removed parts are restored."
        ),
    ] = 3.0
    max_loss: Annotated[float, typer.Option("--max-loss", min=0, help=_MAX_LOSS)] = 1.0

    def budget(self) -> int | None:
        """Return the bytes that this process may hold; None without --memory-budget."""
        return options.memory("--memory-budget", self.memory_budget) if self.memory_budget else None

    def controller(self, *, watch: bool) -> ControllerSettings:
        """Return the settings of the memory controller; raises UsageError for a bound that is no number."""
        from secateur_runtime.server.engine.memory_controller import ControllerSettings

        if math.isnan(self.max_loss):
            raise UsageError("--max-loss nan: give nats a token, such as 1.0, or inf for no bound")
        return ControllerSettings(
            headroom=self.headroom, restore_delay=self.calm, watch=watch, most_loss=self.max_loss
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestOptions:
    """Bounds on requests and on the work for them."""

    batch: Annotated[int, typer.Option("--batch", min=1, help="Requests answered at once.")] = 16
    queue: Annotated[
        int, typer.Option("--queue", min=0, help="Requests that may wait; more are refused with 429.")
    ] = 64
    wait: Annotated[
        float, typer.Option("--wait", min=0, help="Seconds that a request may wait for room.")
    ] = 60.0
    timeout: Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds that an answer may take.")] = (
        600.0
    )
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", min=1, help="Tokens of an answer where the request says nothing.")
    ] = 512
    context: Annotated[int, typer.Option("--context", min=8, help="llamacpp: tokens of a request.")] = 4096
    max_body: Annotated[str, typer.Option("--max-body", help="Size of a request, at most.")] = "2M"
    threads: Annotated[
        int, typer.Option("--threads", min=1, help="Threads; no more than there are free cores.")
    ] = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyOptions:
    """Who may send requests."""

    api_key_file: Annotated[
        Optional[Path],
        typer.Option("--api-key-file", help=f"File with the key that clients must send; {_KEY} is read too."),
    ] = None
    no_key: Annotated[bool, typer.Option("--no-key", help="Let other machines in without a key.")] = False

    def key(self) -> str:
        """Return the key of --api-key-file or of the environment; a list of processes shows neither."""
        if self.api_key_file is None:
            return os.environ.get(_KEY, "")
        return _read_key(self.api_key_file)


@with_options
def serve(
    *,
    model: options.Model,
    server: ServerOptions,
    elastic: ElasticOptions,
    memory: MemoryOptions,
    cache: Annotated[
        Optional[Path], typer.Option("--cache", help="Folder for ladders and sorted weights.")
    ] = None,
    requests: RequestOptions,
    access: KeyOptions,
    quiet: options.Quiet = False,
) -> None:
    """Serve a model by OpenAI's protocol, with a page that shows memory, level and tokens live."""
    from secateur.adapt.serving.launch import Serving, require_server
    from secateur.adapt.serving.launch import serve as run
    from secateur_runtime.server.engine.admission import Limits

    require_server()
    key = access.key()
    budget = memory.budget()
    how = Serving(
        model=model,
        backend=server.backend,
        name=server.name,
        host=server.host,
        port=server.port,
        key=key,
        open=access.no_key,
        threads=requests.threads,
        usual=requests.max_tokens,
        seconds=requests.timeout,
        context=requests.context,
        budget=budget,
        body=options.memory("--max-body", requests.max_body),
        limits=Limits(batch=requests.batch, queue=requests.queue, wait=requests.wait),
        care=memory.controller(watch=elastic.policy != "none"),
        elasticity=(
            elastic.elasticity(folder=cache, threads=requests.threads, kind=server.weights())
            if server.backend != "llamacpp"
            else None
        ),
    )
    with printing.progress(quiet=quiet) as progress:
        run(
            how,
            progress if quiet or sys.stderr.isatty() else _LogLines(),
            lambda address: print(f"serving {model} at {address}", file=sys.stderr, flush=True),
        )


class _LogLines(Silent):
    """Write notes of slow steps to the log of a service, where there is no progress bar."""

    def note(self, line: str) -> None:
        """Print a line."""
        print(line, file=sys.stderr, flush=True)


def _read_key(file: Path) -> str:
    try:
        key = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the API key in {file}: {error}") from None
    if not key or not key.isascii() or len(key.split()) != 1:
        raise UsageError(f"{file} holds no API key: one line of ASCII without spaces")
    return key
