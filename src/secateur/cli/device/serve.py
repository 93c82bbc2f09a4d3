"""`secateur serve`: answer requests by OpenAI's protocol, and give memory back while doing so."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from secateur.cli.shared import options, printing
from secateur.core.progress import Silent
from secateur_runtime.errors import UsageError

if TYPE_CHECKING:
    from secateur.adapt.serving.elastic_backend import Elasticity

_POLICY = (
    "Who decides what goes: auto (cost-aware where the ladder is priced, else greedy), knapsack, threshold,"
    " dqn; none keeps all and watches no memory."
)
_BACKEND = (
    "elastic (torch) or native (the C kernels), whose level changes while they serve, or llamacpp for a GGUF"
    " file."
)
_MAX_LOSS = (
    "Nats a token, over the whole model's on the ladder's text, beyond which nobody is answered and requests"
    " wait; inf for no bound."
)
_KEY = "SECATEUR_API_KEY"


def serve(
    model: options.Model,
    backend: Annotated[str, typer.Option("--backend", help=_BACKEND)] = "elastic",
    kind: Annotated[
        str, typer.Option("--type", help="native: weights in bf16 (the default), int8, int4 or f32.")
    ] = "",
    host: Annotated[
        str,
        typer.Option(
            "--host", help="Address to listen on; another than this machine's own needs a key, or --no-key."
        ),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0 takes a free one.")] = 8080,
    name: Annotated[
        str, typer.Option("--name", help="What clients call the model; MODEL's own name if not given.")
    ] = "",
    ladder: Annotated[
        Optional[Path],
        typer.Option("--ladder", help="Ladder of `secateur adapt rank`; made once and kept if not given."),
    ] = None,
    policy: Annotated[str, typer.Option("--policy", help=_POLICY)] = "auto",
    policy_file: Annotated[
        Optional[Path], typer.Option("--policy-file", help="Network of `secateur adapt train`, for dqn.")
    ] = None,
    kv: Annotated[str, typer.Option("--kv", help="Keys and values: f32, f16, or bf16 in torch.")] = "f32",
    memory_budget: Annotated[
        str,
        typer.Option(
            "--memory-budget",
            help="Memory for this process, such as 900M; the machine and its groups bound it too.",
        ),
    ] = "",
    headroom: Annotated[
        float, typer.Option("--headroom", min=0, max=0.9, help="Share of every limit that is kept free.")
    ] = 0.05,
    calm: Annotated[
        float,
        typer.Option("--calm", min=0, help="Seconds for which there must be room before the level goes up."),
    ] = 3.0,
    max_loss: Annotated[float, typer.Option("--max-loss", min=0, help=_MAX_LOSS)] = 1.0,
    cache: Annotated[
        Optional[Path], typer.Option("--cache", help="Folder for ladders and sorted weights.")
    ] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Requests answered at once.")] = 16,
    queue: Annotated[
        int, typer.Option("--queue", min=0, help="Requests that may wait; more are refused with 429.")
    ] = 64,
    wait: Annotated[
        float, typer.Option("--wait", min=0, help="Seconds that a request may wait for room.")
    ] = 60.0,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0.1, help="Seconds that an answer may take.")
    ] = 600.0,
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", min=1, help="Tokens of an answer where the request says nothing.")
    ] = 512,
    context: Annotated[int, typer.Option("--context", min=8, help="llamacpp: tokens of a request.")] = 4096,
    max_body: Annotated[str, typer.Option("--max-body", help="Size of a request, at most.")] = "2M",
    threads: Annotated[
        int, typer.Option("--threads", min=1, help="Threads; no more than there are free cores.")
    ] = 1,
    api_key_file: Annotated[
        Optional[Path],
        typer.Option("--api-key-file", help=f"File with the key that clients must send; {_KEY} is read too."),
    ] = None,
    no_key: Annotated[bool, typer.Option("--no-key", help="Let other machines in without a key.")] = False,
    quiet: options.Quiet = False,
) -> None:
    """Serve a model by OpenAI's protocol, with a page that shows memory, level and tokens live."""
    from secateur.adapt.serving.launch import Serving, require_server
    from secateur.adapt.serving.launch import serve as run
    from secateur_runtime.server.engine.admission import Limits
    from secateur_runtime.server.engine.memory_controller import ControllerSettings

    require_server()
    key = _key(api_key_file)
    budget = options.memory("--memory-budget", memory_budget) if memory_budget else None
    how = Serving(
        model=model,
        backend=backend,
        name=name,
        host=host,
        port=port,
        key=key,
        open=no_key,
        threads=threads,
        usual=max_tokens,
        seconds=timeout,
        context=context,
        budget=budget,
        body=options.memory("--max-body", max_body),
        limits=Limits(batch=batch, queue=queue, wait=wait),
        care=ControllerSettings(
            headroom=headroom, restore_delay=calm, watch=policy != "none", most_loss=_bound(max_loss)
        ),
        elasticity=(
            _elasticity(ladder, policy, policy_file, kv, cache, threads, _kind(backend, kind))
            if backend != "llamacpp"
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
    """Says what takes minutes also where nobody sees a bar: in the log of a service."""

    def note(self, line: str) -> None:
        """Print a line."""
        print(line, file=sys.stderr, flush=True)


def _elasticity(
    ladder: Path | None,
    policy: str,
    policy_file: Path | None,
    kv: str,
    cache: Path | None,
    threads: int,
    kind: str,
) -> Elasticity:
    from secateur.adapt.serving.elastic_backend import Elasticity, cache_folder

    return Elasticity(
        folder=cache or cache_folder(),
        ladder=ladder,
        policy=policy,
        policy_file=policy_file,
        kv=kv,
        threads=threads,
        kind=kind,
    )


def _kind(backend: str, kind: str) -> str:
    """Return the type of weights in the kernels.

    Raises UsageError for one that another backend is to run in.
    """
    from secateur.adapt.serving.elastic_backend import NATIVE

    if kind and backend != "native":
        raise UsageError(f"--type {kind} is for --backend native: {backend} runs the model as it is stored")
    return (kind or NATIVE) if backend == "native" else ""


def _bound(nats: float) -> float:
    if math.isnan(nats):
        raise UsageError("--max-loss nan: give nats a token, such as 1.0, or inf for no bound")
    return nats


def _key(file: Path | None) -> str:
    """Return the key from a file, or else from the environment, so that no list of processes shows it."""
    if file is None:
        return os.environ.get(_KEY, "")
    try:
        key = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the API key in {file}: {error}") from None
    if not key or not key.isascii() or len(key.split()) != 1:
        raise UsageError(f"{file} holds no API key: one line of ASCII without spaces")
    return key
