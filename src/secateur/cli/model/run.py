"""`secateur run`: a whole job from a YAML file, resumable, with a table of cost and result of each stage."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from secateur.cli.shared import printing
from secateur.cli.shared.option_groups import DisplayOptions, with_options

if TYPE_CHECKING:
    from secateur.pipeline.recipe.estimate import Forecast
    from secateur.pipeline.recipe.runner import RecipeResult, StageResult

_SETS = (
    "Another value: calibration.samples=8, seed=1, or quantize.bits=3 for every stage of that kind;"
    " repeatable."
)


@with_options
def run(
    *,
    recipe: Annotated[Path, typer.Argument(help="YAML file, such as recipes/pi5-4bit.yaml.")],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="Folder for every stage's artefact, the last model and file, and report.json.",
        ),
    ],
    model: Annotated[str, typer.Option("--model", help="Instead of the recipe's model.")] = "",
    changes: Annotated[list[str] | None, typer.Option("--set", help=_SETS)] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Continue an output that exists: stages that still fit are not run again."
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Check, and print the stages with predicted size, memory and time; write nothing.",
        ),
    ] = False,
    display: DisplayOptions,
) -> None:
    """Run a recipe: prune, recover, quantize, export, eval and gate, in the order that its file gives."""
    from secateur.pipeline.recipe.runner import conduct
    from secateur.pipeline.recipe.schema import read_recipe

    whole = read_recipe(recipe, model=model, changes=changes or ())
    if dry_run:
        from secateur.pipeline.recipe.estimate import forecast

        _print_forecast(forecast(whole, output), as_json=display.as_json)
        return
    with display.progress() as progress:
        done = conduct(whole, output, resume=resume, progress=progress)
    _print(done, as_json=display.as_json)


def _print_forecast(rows: Sequence[Forecast], *, as_json: bool) -> None:
    if as_json:
        named = [
            {
                "stage": row.kind,
                "bytes": row.bytes,
                "memory": row.memory,
                "seconds": row.seconds,
                "cached": row.cached,
            }
            for row in rows
        ]
        print(json.dumps(named, indent=2))
        return
    shown = [
        [
            row.kind,
            printing.size(row.bytes),
            printing.size(row.memory),
            f"{row.seconds:.0f}",
            "there already" if row.cached else "",
        ]
        for row in rows
    ]
    printing.table(
        shown, header=["stage", "weights", "peak memory", "seconds", ""], title="estimated, not measured"
    )


def _print(done: RecipeResult, *, as_json: bool) -> None:
    if as_json:
        body = {"output": str(done.out), "model": str(done.model or ""), "file": str(done.file or "")}
        from secateur.pipeline.recipe.runner import row

        stages = [row(step) for step in done.steps]
        print(json.dumps(body | {"stages": stages}, indent=2, sort_keys=True))
        return
    header = ["stage", "seconds", "processor", "parameters", "size", "perplexity", "to dense", "KL", ""]
    printing.table([_row(step) for step in done.steps], header=header, title=f"wrote {done.out}")
    for what, path in (("model", done.model), ("file", done.file)):
        if path:
            print(f"{what}: {path}")


def _row(step: StageResult) -> list[str]:
    figures = step.figures

    def number(name: str, form: str) -> str:
        value: Any = figures.get(name)
        return f"{value:{form}}" if value is not None else ""

    size = printing.size(figures["bytes"]) if "bytes" in figures else ""
    kl = number("kl", ".4f") or number("kl_after", ".4f") or number("kl_in_llama_cpp", ".1e")
    note = "as made before" if step.cached else "holds" if step.kind == "gate" else ""
    cost = [f"{step.seconds:.0f}", f"{step.processor_seconds:.0f}"]
    return [
        step.kind,
        *cost,
        number("parameters", ","),
        size,
        number("perplexity", ".2f"),
        number("perplexity_ratio", ".3f"),
        kl,
        note,
    ]
