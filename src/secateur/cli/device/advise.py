"""`secateur advise`: what to do with a model so that it suits a device."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from secateur.cli.shared import options, printing
from secateur.cli.shared.option_groups import DisplayOptions, with_options
from secateur_runtime.errors import ExitCode

if TYPE_CHECKING:
    from secateur.device.decode_model import PredictedSpeed
    from secateur.pipeline.advise.advise import Advice, RunOption

_SHOWN = 8


@with_options
def advise(
    *,
    model: options.Model,
    device: Annotated[
        str,
        typer.Option(
            "--device", help="local (this machine), a profile of `secateur device --list`, or a FILE.toml."
        ),
    ] = "local",
    ram: Annotated[
        Optional[str], typer.Option("--ram", help="Memory that the model may use there: 2G, 500MB.")
    ] = None,
    context: Annotated[
        Optional[int], typer.Option("--ctx", help="Tokens in the cache; 4096, or what the model has.")
    ] = None,
    goal: Annotated[str, typer.Option("--goal", help="balanced, speed, accuracy or size.")] = "balanced",
    every: Annotated[bool, typer.Option("--all", help="List every option that was estimated.")] = False,
    display: DisplayOptions,
) -> None:
    """Advise pruning and quantization for a device, and print the commands that follow.

    Size, memory and speed of each option are predicted.
    """
    from secateur.pipeline.advise.advise import advise as run

    with display.progress() as progress:
        found = run(model, device=device, ram=ram, context=context, goal=goal, progress=progress)
    if display.as_json:
        print(json.dumps(_body(found), indent=2, sort_keys=True))
    else:
        _show(found, every=every)
    if found.best is None:
        raise typer.Exit(ExitCode.FAILED)


def _show(found: Advice, *, every: bool) -> None:
    memory = f"{printing.size(found.ram)} of memory{' (assumed: say --ram)' if found.assumed else ''}"
    print(
        f"{found.model} on {found.profile.name}: {memory}, {found.context} tokens of context, goal"
        f" {found.goal}\n"
    )
    if found.best:
        printing.table(_facts(found.best), title=f"take {found.best.label}")
    else:
        print("nothing fits; what would:")
        printing.table([[f"- {line}"] for line in found.would])
    listed = found.options if every else _nearest(found)
    header = ("goes", "type", "file", "memory", "tokens/s", "with a full cache", "perplexity", "")
    printing.table(
        [_row(one, found.best) for one in listed],
        header=header,
        title="options" if every else "the best of the others, and the ends",
    )
    print()
    printing.table([[one.kind, one.answer, one.reason] for one in found.verdicts], title="why")
    if found.steps:
        print("\nthen, in this order:")
        for step in found.steps:
            print(f"  secateur {shlex.join(step.command)}\n      # {step.reason}")
    print(
        f"\nspeeds: {found.basis}; perplexity: expected factor before training, measured on SmolLM2-135M,"
        " larger models lose less"
    )
    for note in found.notes:
        print(f"note: {note}")


def _facts(best: RunOption) -> list[list[str]]:
    return [
        ["file", printing.size(best.file)],
        ["memory with a full cache", printing.size(best.memory)],
        ["tokens/s at the start", _speed(best.start)],
        ["tokens/s with a full cache", _speed(best.full)],
        ["perplexity, before training", f"about {best.perplexity:.2f} times"],
    ]


def _nearest(found: Advice) -> list[RunOption]:
    """Return the best option, and a few that none beats in perplexity, memory and speed at once."""
    unbeaten = [
        one
        for one in found.options
        if one == found.best or not any(_beats(other, one) for other in found.options)
    ]
    unbeaten.sort(key=lambda one: (not one.fits, one.perplexity))
    best = [found.best] if found.best else []
    return sorted(
        [*best, *[one for one in unbeaten if one not in best][: _SHOWN - len(best)]],
        key=lambda one: one.perplexity,
    )


def _beats(one: RunOption, other: RunOption) -> bool:
    ours = (one.perplexity, one.memory, -one.full.likely)
    theirs = (other.perplexity, other.memory, -other.full.likely)
    return ours != theirs and all(left <= right for left, right in zip(ours, theirs, strict=True))


def _row(one: RunOption, best: RunOption | None) -> list[str]:
    mark = "<- take" if one == best else "" if one.fits else "does not fit"
    cost = f"{one.perplexity:.2f}{'' if one.measured else '?'}"
    return [
        one.cut.label,
        one.type,
        printing.size(one.file),
        printing.size(one.memory),
        f"{one.start.likely:.3g}",
        f"{one.full.likely:.3g}",
        cost,
        mark,
    ]


def _speed(speed: PredictedSpeed) -> str:
    return f"{speed.likely:.3g} ({speed.low:.3g} to {speed.high:.3g})"


def _body(found: Advice) -> dict[str, Any]:
    body = {
        name: getattr(found, name)
        for name in ("model", "device", "goal", "context", "ram", "assumed", "would", "notes", "basis")
    }
    body |= {
        "fits": found.best is not None,
        "best": _option(found.best) if found.best else None,
        "options": [_option(one) for one in found.options],
    }
    body["profile"] = found.profile.model_dump(exclude_none=True)
    body["verdicts"] = [asdict(one) for one in found.verdicts]
    return body | {
        "steps": [{"command": ["secateur", *step.command], "reason": step.reason} for step in found.steps]
    }


def _option(one: RunOption) -> dict[str, Any]:
    plain = {
        name: getattr(one, name) for name in ("type", "file", "memory", "perplexity", "measured", "fits")
    }
    cut = {
        "kind": one.cut.kind,
        "share": one.cut.share,
        "label": one.cut.label,
        "blocks_dropped": len(one.cut.drop),
    }
    return plain | {"cut": cut, "start": asdict(one.start), "full": asdict(one.full)}
