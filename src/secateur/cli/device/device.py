"""`secateur device`: what this machine can do, or what is known of another."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from secateur.cli.shared import options, printing
from secateur.cli.shared.option_groups import DisplayOptions, with_options
from secateur_runtime.errors import UsageError

_DISTURBED = 0.25

if TYPE_CHECKING:
    from secateur.device.profile import Profile
    from secateur.pipeline.advise.local_device import Probed


@with_options
def device(
    *,
    name: Annotated[
        str,
        typer.Argument(
            help="Device to show: local (measured now), a profile, or a FILE.toml.", metavar="[DEVICE]"
        ),
    ] = "local",
    listed: Annotated[bool, typer.Option("--list", help="List the profiles that come along.")] = False,
    threads: Annotated[
        Optional[int],
        typer.Option(
            "--threads", min=1, help="Threads to measure with; by default as many as cores are free."
        ),
    ] = None,
    decode: Annotated[
        bool,
        typer.Option(
            "--decode/--no-decode", help="Time llama.cpp with synthetic models too, which predictions need."
        ),
    ] = True,
    output: Annotated[
        Optional[Path],
        typer.Option("--output", "-o", help="Write the profile as a FILE.toml, for --device elsewhere."),
    ] = None,
    overwrite: options.Overwrite = False,
    display: DisplayOptions,
) -> None:
    """Measure this machine, or show the profile of another device."""
    from secateur.device.profile import LOCAL, check_place, load_profile, profile_names, write_profile

    if listed:
        _list([(one, load_profile(one)) for one in profile_names()], as_json=display.as_json)
        return
    if name != LOCAL:
        if output is not None or threads is not None:
            raise UsageError(
                f"--output and --threads are for measuring this machine, not for {name}: leave them out"
            )
        _show(load_profile(name), {}, as_json=display.as_json)
        return
    if output is not None:
        check_place(output, overwrite=overwrite)
    from secateur.pipeline.advise.local_device import probe_device

    with display.progress() as progress:
        found = probe_device(threads=threads, decode=decode, progress=progress)
    if output is not None:
        write_profile(found.profile, output, overwrite=overwrite)
    if found.profile.rates and found.profile.rates.spread > _DISTURBED:
        print(
            f"warning: the middle run was {found.profile.rates.spread:.0%} slower than the fastest: measure"
            " again when the machine is idle",
            file=sys.stderr,
        )
    _show(found.profile, _machine(found), as_json=display.as_json)


def _machine(found: Probed) -> dict[str, Any]:
    gpu = found.machine.gpu
    seen = (
        f"{gpu.name}, {printing.size(gpu.memory)}{', skips two of four zeros' if gpu.sparse else ''}"
        if gpu
        else "none found"
    )
    return {
        "free_cores": found.machine.free,
        "available_memory": found.machine.available,
        "copy": found.measured.copy,
        "gpu": seen,
    }


def _show(profile: Profile, more: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        printing.result({"profile": profile.model_dump(exclude_none=True), "machine": more}, as_json=True)
        return
    from secateur.device.profile import UNITS

    sources: dict[str, int] = {}

    def said(source: str, note: str, *, confirmed: bool) -> str:
        number = sources.setdefault(source, len(sources) + 1)
        return f"[{number}]{'' if confirmed else ' not confirmed'}{': ' + note if note else ''}"

    rows = [
        [name, figure(one.value, UNITS[name]), said(one.source, one.note, confirmed=one.confirmed)]
        for name, one in profile.figures.items()
    ]
    rows.append(
        [
            "instruction sets",
            " ".join(profile.isa.names),
            said(profile.isa.source, "", confirmed=profile.isa.confirmed),
        ]
    )
    rows += [[name.replace("_", " "), _plain(name, value), ""] for name, value in more.items()]
    rows += [
        [
            one.model,
            f"{one.tokens_per_second:g} tokens/s",
            said(one.source, one.note, confirmed=one.confirmed),
        ]
        for one in profile.published
    ]
    if rates := profile.rates:
        took = said(
            f"{rates.runtime}, {rates.threads} threads, median of several runs, {rates.taken}",
            "",
            confirmed=True,
        )
        rows += [
            [f"decode, {kind} weights", figure(value, "B/s"), took] for kind, value in rates.weights.items()
        ]
        rows += [
            ["decode, KV cache", figure(rates.cache, "B/s"), took],
            ["decode, each block", f"{rates.layer * 1e6:.3g} us", took],
        ]
    printing.table(rows, title=profile.name)
    printing.table([[f"[{number}]", source] for source, number in sources.items()], title="sources")


def _list(profiles: list[tuple[str, Profile]], *, as_json: bool) -> None:
    if as_json:
        printing.result(
            {name: profile.model_dump(exclude_none=True) for name, profile in profiles}, as_json=True
        )
        return
    rows = []
    for name, profile in profiles:
        bandwidth = profile.figures.get("bandwidth") or profile.figures.get("stream")
        rows.append(
            [
                name,
                profile.name,
                figure(profile.figure("memory"), "B"),
                figure(bandwidth.value, "B/s") if bandwidth else "",
                str(len(profile.published)),
            ]
        )
    printing.table(rows, header=("name", "device", "memory", "bandwidth", "published speeds"))


def _plain(name: str, value: Any) -> str:
    units = {"available_memory": "B", "copy": "B/s"}
    return figure(value, units[name]) if name in units else str(value)


def figure(value: float, unit: str) -> str:
    """Return a figure as text with its unit, such as `8 GB/s`."""
    if unit == "B":
        return printing.size(value)
    for scale, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if unit and value >= scale:
            return f"{value / scale:.4g} {letter}{unit}"
    return f"{value:g}{' ' + unit if unit else ''}"
