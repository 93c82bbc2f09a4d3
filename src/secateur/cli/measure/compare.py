"""`secateur compare`: every method at the same size, measured alike, next to the dense and quantized one."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from secateur.cli.measure.compare_output import print_comparison, watching
from secateur.cli.shared import options
from secateur.cli.shared.option_groups import DisplayOptions, arithmetic_of, with_options

if TYPE_CHECKING:
    from secateur.pipeline.compare.compare import Running
    from secateur.pipeline.compare.protocol import Protocol

QUICK_METHODS = (
    *("magnitude", "wanda", "ria", "sparsegpt", "width:criterion=flap", "width:criterion=minitron"),
    *("depth", "depth:sub-blocks"),
)
QUICK_TARGETS = ("ratio=0.2",)
QUICK = {
    "samples": 8,
    "calib_window": 512,
    "window": 1024,
    "count": 4,
    "prompt": 32,
    "tokens": 16,
    "repeat": 7,
}
_METHODS = (
    "Comma-separated: {weight_methods}, or a kind of pruning (of {other_kinds}, all but vocab); options after"
    " colons: width:criterion=flap:units=ffn+kv; all: every method, and every criterion and spread of units."
)
_TARGETS = (
    "Comma-separated: ratio=0.2 (of all block weights), params=80%, size=200MB, ram=300MB@ctx2048, or 2:4; +"
    " joins what must hold together."
)
_TASKS = "Tasks of lm-eval, comma-separated: arc_easy,hellaswag; a later run in the same folder may add them."
_BACKENDS = (
    "Where speed is measured: llamacpp, torch, native, several comma-separated, or none; native adds the"
    " whole model in its int8 and int4."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowOptions:
    """Which methods are compared, and at which sizes."""

    methods: Annotated[Optional[list[str]], typer.Option("--methods", help=_METHODS)] = None
    targets: Annotated[Optional[list[str]], typer.Option("--targets", help=_TARGETS)] = None
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="Eight methods at ratio=0.2 with little text: minutes, and rougher figures."
        ),
    ] = False

    def rows(self) -> dict[str, Sequence[str]]:
        """Return methods and targets; what is left out is up to the comparison."""
        methods = self.methods or (QUICK_METHODS if self.quick else ())
        targets = self.targets or (QUICK_TARGETS if self.quick else ())
        return {name: given for name, given in (("methods", methods), ("targets", targets)) if given}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtocolOptions:
    """How every row is made and measured."""

    text: Annotated[
        str, typer.Option("--text", help="Text that perplexity is measured on, as in `eval`.")
    ] = "builtin"
    window: Annotated[
        Optional[int], typer.Option("--window", min=2, help="Tokens per window of it (2048; quick 1024).")
    ] = None
    count: Annotated[Optional[int], typer.Option("-n", min=1, help="Windows of it (20; quick 4).")] = None
    compute: options.Compute = "float32"
    calib: options.Calib = "builtin"
    samples: Annotated[
        Optional[int], typer.Option("--samples", min=1, help="Windows of calibration text (64; quick 8).")
    ] = None
    calib_window: Annotated[
        Optional[int], typer.Option("--calib-window", min=2, help="Tokens per calibration window (512).")
    ] = None
    seed: options.Seed = 0
    backends: Annotated[Optional[str], typer.Option("--backends", help=_BACKENDS)] = None
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads while speed is measured.")] = 1
    prompt: Annotated[
        Optional[int], typer.Option("--prompt", min=1, help="Tokens of prompt (256; quick 32).")
    ] = None
    tokens: Annotated[
        Optional[int], typer.Option("--tokens", min=2, help="Tokens of answer (64; quick 16).")
    ] = None
    repeat: Annotated[
        Optional[int],
        typer.Option("--repeat", min=1, help="Counted runs, in turns with the whole model (5; quick 7)."),
    ] = None

    def protocol(self, asked: AuditOptions, *, quick: bool) -> Protocol:
        """Return the protocol; raises UsageError for an unknown arithmetic. quick: little text."""
        from secateur.calibrate.calibration import Calibration
        from secateur.pipeline.compare.protocol import Protocol

        given = {name: getattr(self, name) for name in QUICK if getattr(self, name) is not None}
        lengths = {**(QUICK if quick else {}), **given}
        calibration = Calibration(
            text=self.calib, samples=lengths.pop("samples", 64), window=lengths.pop("calib_window", 512)
        )
        return Protocol(
            calibration=calibration,
            backends=self._backends(quick=quick),
            text=self.text,
            compute=arithmetic_of(self.compute),
            seed=self.seed,
            threads=self.threads,
            tasks=tuple(options.separated(asked.tasks)),
            limit=asked.limit if asked.tasks else None,
            shots=asked.few_shot,
            datasets=asked.datasets,
            bias=asked.bias,
            bias_limit=asked.limit if asked.bias else None,
            winogender=asked.winogender,
            **lengths,
        )

    def _backends(self, *, quick: bool) -> tuple[str, ...]:
        """Return where speed is measured; by default llama.cpp where it is installed, and torch."""
        from secateur.runtime.llamacpp import has_llamacpp

        if self.backends == "none":
            return ()
        if self.backends is not None:
            return tuple(name.strip() for name in self.backends.split(","))
        if not has_llamacpp():
            return ("torch",)
        return ("llamacpp",) if quick else ("llamacpp", "torch")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditOptions:
    """What every row is asked besides text; raises UsageError for options that would do nothing."""

    tasks: Annotated[Optional[str], typer.Option("--tasks", help=_TASKS)] = None
    limit: Annotated[
        Optional[int],
        typer.Option("--limit", min=1, help="Items of each task and of the audit, from the first."),
    ] = None
    few_shot: Annotated[
        Optional[int], typer.Option("--few-shot", min=0, help="Solved examples before each item.")
    ] = None
    datasets: Annotated[
        str,
        typer.Option(
            "--datasets", help="Folder laid out like the hub that holds the data of tasks and audit."
        ),
    ] = ""
    bias: Annotated[
        bool,
        typer.Option(
            "--bias", help="Audit bias of every row, as `eval --bias` does, against the whole model."
        ),
    ] = False
    winogender: Annotated[
        str, typer.Option("--winogender", help="WinoGender's all_sentences.tsv, for --bias.")
    ] = ""

    def __post_init__(self) -> None:
        options.needs("--tasks", self.tasks, few_shot=self.few_shot)
        options.needs("--bias", self.bias, winogender=self.winogender or None)
        options.needs(
            "--tasks or --bias", self.tasks or self.bias, limit=self.limit, datasets=self.datasets or None
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkOptions:
    """How the work is done, which changes no figure but the seconds."""

    workers: Annotated[
        Optional[int], typer.Option("--workers", min=1, help="Rows at once; as many as there are cores.")
    ] = None
    max_ram: Annotated[
        str, typer.Option("--max-ram", help="Memory for all processes together, such as 8G.")
    ] = ""
    engine: Annotated[
        str,
        typer.Option(
            "--engine", help="local processes, or ray: a cluster whose nodes share the output folder."
        ),
    ] = "local"
    keep_models: Annotated[
        bool,
        typer.Option(
            "--keep-models", help="Leave every pruned model in the folder; its plan makes it again otherwise."
        ),
    ] = False

    def running(self) -> Running:
        """Return how the work is done; raises UsageError for a --max-ram that is no amount of memory."""
        from secateur.pipeline.compare.compare import Running

        return Running(
            workers=self.workers,
            max_ram=options.memory("--max-ram", self.max_ram) if self.max_ram else None,
            engine=self.engine,
            keep=self.keep_models,
        )


@with_options
def compare(
    *,
    model: options.Model,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="Folder of the comparison; a later run continues it and repeats nothing."
        ),
    ],
    chosen: RowOptions,
    measured: ProtocolOptions,
    asked: AuditOptions,
    work: WorkOptions,
    display: DisplayOptions,
) -> None:
    """Compare methods of pruning on one model, and remember every figure."""
    running = work.running()
    protocol = measured.protocol(asked, quick=chosen.quick)
    from secateur.pipeline.compare.compare import compare as run

    started = time.perf_counter()
    with watching(quiet=display.quiet or display.as_json) as watcher:
        found = run(model, output, **chosen.rows(), protocol=protocol, running=running, watcher=watcher)
    print_comparison(found, time.perf_counter() - started, as_json=display.as_json)
    if found.failures:
        sys.exit(found.failures[0].code)
