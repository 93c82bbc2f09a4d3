"""`secateur eval`: how good a model still is."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from secateur.cli.measure.evaluate_output import bias_body, gate, print_evaluation, quality_body, task_body
from secateur.cli.shared import options
from secateur.cli.shared.option_groups import DisplayOptions, arithmetic_of, with_options
from secateur_runtime.errors import UsageError, nearest

if TYPE_CHECKING:
    from secateur.core.context import Arithmetic
    from secateur.core.progress import Progress
    from secateur.measure.perplexity import Quality
    from secateur.pipeline.evaluate.bias_audit import Audit
    from secateur.pipeline.evaluate.native_model import NativeOptions

_TASKS = (
    "Tasks of lm-eval, comma-separated: arc_easy,hellaswag. With tasks or --bias,"
    " perplexity is measured only if --text is given."
)
_GATE = (
    "Exit with 3 if a figure is further from neutral than the reference's by more than this share (or nats a"
    " token), and not by noise."
)

_BACKENDS = ("torch", "native")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationOptions:
    """Text that perplexity is measured on, and the model to compare with."""

    text: Annotated[
        Optional[str],
        typer.Option(
            "--text", help="Text file (.txt, .raw, .jsonl), hf:DATASET:CONFIG:SPLIT, or builtin (default)."
        ),
    ] = None
    window: Annotated[int, typer.Option("--window", min=2, help="Tokens per window.")] = 2048
    count: Annotated[int, typer.Option("-n", min=1, help="Windows to measure.")] = 20
    reference: Annotated[
        Optional[str], typer.Option("--reference", help="Model to compare with, usually the dense parent.")
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOptions:
    """Tasks and audit; raises UsageError for options that would do nothing."""

    tasks: Annotated[Optional[str], typer.Option("--tasks", help=_TASKS)] = None
    metrics: Annotated[
        Optional[str], typer.Option("--metrics", help="Only these figures of the tasks: acc,acc_norm.")
    ] = None
    limit: Annotated[
        Optional[int],
        typer.Option("--limit", min=1, help="Items of each task and of the audit, from the first."),
    ] = None
    few_shot: Annotated[
        Optional[int],
        typer.Option(
            "--few-shot", min=0, help="Solved examples before each item; the task's own number by default."
        ),
    ] = None
    datasets: Annotated[
        Optional[Path],
        typer.Option(
            "--datasets", help="Folder laid out like the hub that holds the data of tasks and audit."
        ),
    ] = None
    bias: Annotated[
        bool,
        typer.Option(
            "--bias",
            help="Audit bias: CrowS-Pairs by category and, with --winogender, sentences in three genders.",
        ),
    ] = False
    winogender: Annotated[
        Optional[Path],
        typer.Option("--winogender", help="WinoGender's all_sentences.tsv, or the folder that holds it."),
    ] = None
    max_bias_shift: Annotated[Optional[float], typer.Option("--max-bias-shift", min=0.0, help=_GATE)] = None

    def __post_init__(self) -> None:
        options.needs("--tasks", self.tasks, metrics=self.metrics, few_shot=self.few_shot)
        options.needs("--bias", self.bias, winogender=self.winogender, max_bias_shift=self.max_bias_shift)
        options.needs("--tasks or --bias", self.tasks or self.bias, limit=self.limit, datasets=self.datasets)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendOptions:
    """What perplexity is measured in; raises UsageError for options that would do nothing."""

    backend: Annotated[
        str, typer.Option("--backend", help="What perplexity is measured in: torch or native.")
    ] = "torch"
    kind: Annotated[
        str,
        typer.Option(
            "--type",
            help=(
                "Type of the weights in native: f32, bf16, int8, int4, sparse-bf16, sparse-int8, sparse-int4."
            ),
        ),
    ] = ""
    threads: Annotated[
        int, typer.Option("--threads", min=1, help="Threads in native; no more than there are free cores.")
    ] = 1

    def __post_init__(self) -> None:
        given = {"type": self.kind or None, "threads": self.threads if self.threads > 1 else None}
        options.needs("--backend native", self.backend == "native", **given)
        if self.backend not in _BACKENDS:
            raise UsageError(
                f"unknown --backend {self.backend!r}{nearest(self.backend, _BACKENDS)}; known:"
                f" {', '.join(_BACKENDS)}"
            )

    def native(self) -> NativeOptions | None:
        """Return the options of the native backend, or None for torch."""
        from secateur.pipeline.evaluate.native_model import NativeOptions

        if self.backend != "native":
            return None
        return NativeOptions(kind=self.kind.lower(), threads=self.threads)


@with_options
def evaluate(
    *,
    model: options.Model,
    measured: EvaluationOptions,
    asked: TaskOptions,
    compute: options.Compute = "float32",
    backend: BackendOptions,
    display: DisplayOptions,
) -> None:
    """Measure perplexity, tasks, bias, and the divergence from a reference model."""
    arithmetic = arithmetic_of(compute)
    options.needs("--reference", measured.reference, max_bias_shift=asked.max_bias_shift)
    started = time.perf_counter()
    body = dict[str, Any](model=model)
    audit = None
    with display.progress() as progress:
        run = Run(model, measured, asked, arithmetic, progress)
        if asked.tasks:
            _add(body, run.tasks())
        if asked.bias:
            audit = run.audit()
            records = [record.as_dict() for record in audit.records()]
            _add(body, {"bias": bias_body(audit, asked.max_bias_shift), "records": records})
        if measured.text or not (asked.tasks or asked.bias):
            _add(body, run.perplexity(backend.native()))
    print_evaluation(body | {"seconds": round(time.perf_counter() - started, 1)}, as_json=display.as_json)
    if audit and asked.max_bias_shift is not None:
        gate(audit, asked.max_bias_shift)


def _add(body: dict[str, Any], found: dict[str, Any]) -> None:
    """Add what was found; records go after those that are there."""
    body.update(found, records=[*body.get("records", []), *found["records"]])


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the verb."""

    model: str
    measured: EvaluationOptions
    asked: TaskOptions
    arithmetic: Arithmetic
    progress: Progress

    def tasks(self) -> dict[str, Any]:
        """Return the scores of the model, and of its reference where there is one."""
        from secateur.pipeline.evaluate.tasks import evaluate_tasks

        scored = [
            evaluate_tasks(
                each,
                options.separated(self.asked.tasks),
                shots=self.asked.few_shot,
                limit=self.asked.limit,
                datasets=self.asked.datasets,
                compute=self.arithmetic,
                progress=self.progress,
            )
            for each in (self.model, self.measured.reference)
            if each
        ]
        return task_body(scored, options.separated(self.asked.metrics))

    def audit(self) -> Audit:
        """Return what the audit of bias found."""
        from secateur.pipeline.evaluate.bias_audit import audit_bias

        return audit_bias(
            self.model,
            self.measured.reference,
            winogender=self.asked.winogender,
            limit=self.asked.limit,
            datasets=self.asked.datasets,
            compute=self.arithmetic,
            progress=self.progress,
        )

    def perplexity(self, native: NativeOptions | None) -> dict[str, Any]:
        """Return how well the model predicts the text."""
        from secateur.pipeline.evaluate.evaluate import evaluate

        text = self.measured.text or "builtin"
        window = self.measured.window
        quality = evaluate(
            self.model,
            text=text,
            window=window,
            count=self.measured.count,
            reference=self.measured.reference,
            native=native,
            compute=self.arithmetic,
            progress=self.progress,
        )
        records = _records(self.model, text, window, quality, self.arithmetic)
        found = quality_body(quality, self.measured.reference)
        return {"text": text, "window": window, **found, "records": records}


def _records(model: str, text: str, window: int, quality: Quality, compute: str) -> list[dict[str, Any]]:
    from secateur.calibrate.text import read_text
    from secateur.measure.perplexity import described
    from secateur.model.handle import open_model
    from secateur.model.written.plan_file import plan_digest

    handle = open_model(model)
    read = read_text(text)
    words = described(read.origin, read.digest, len(quality.nll_windows), window, compute)
    if quality.per_token_of:
        words += (
            f", per token of {Path(quality.per_token_of).name}"
            f" ({open_model(quality.per_token_of).digest[:19]}...), whose windows these are"
        )
    return [record.as_dict() for record in quality.records(words, handle.digest, plan_digest(handle))]
