"""`secateur eval`: how good a model still is."""

from __future__ import annotations

import time
from typing import Annotated, Any, Optional

import typer

from secateur.cli import options, show
from secateur.cli.apply import arithmetic_of


def evaluate(
    model: options.Model,
    text: Annotated[str, typer.Option("--text", help="Text file (.txt, .raw, .jsonl), hf:DATASET:CONFIG:SPLIT, or builtin.")] = "builtin",
    window: Annotated[int, typer.Option("--window", min=2, help="Tokens per window.")] = 2048,
    count: Annotated[int, typer.Option("-n", min=1, help="Windows to measure.")] = 20,
    reference: Annotated[Optional[str], typer.Option("--reference", help="Model to measure the KL divergence from.")] = None,  # noqa: UP045
    compute: options.Compute = "float32",
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure perplexity, and the divergence from a reference model."""
    arithmetic = arithmetic_of(compute)
    from secateur import pipeline

    started = time.perf_counter()
    with show.progress(quiet=quiet or as_json) as progress:
        quality = pipeline.evaluate(model, text=text, window=window, count=count, reference=reference, compute=arithmetic, progress=progress)
    body: dict[str, Any] = {"model": model, "text": text, "window": window, "windows": len(quality.nll_windows), "tokens": quality.tokens}
    body |= {"perplexity": quality.perplexity, "nll": quality.nll, "nll_standard_error": quality.standard_error}
    if reference:
        body |= {"reference": reference, "kl": quality.kl, "agreement": quality.agreement}
    body["seconds"] = round(time.perf_counter() - started, 1)
    show.result(body, as_json=as_json)
