"""Advise how to make a model fit a device.

Every option in reach is estimated, and the best for a goal is taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from secateur.core.progress import Progress, Silent
from secateur.core.target import Target
from secateur.device.decode_model import Clock, PredictedSpeed, clock_of
from secateur.device.probe import probe
from secateur.device.profile import LOCAL, Profile, load_profile, profile_names
from secateur.device.quality_model import factor
from secateur.export.gguf.description import naming_of, whole_settings
from secateur.export.gguf.settings import context_length
from secateur.model.handle import ModelHandle, open_model
from secateur.pipeline.advise.local_device import find_device, remembered
from secateur.pipeline.advise.size_estimate import Reduction, Sizes
from secateur.pipeline.advise.suitability import Verdict, verdicts
from secateur.pipeline.export.formats import DEFAULT, EXPORTERS, AdvisedFormat, Exporter
from secateur_runtime.errors import TargetError, UsageError, nearest

GOALS = {"balanced": 1.3, "speed": 2.0, "accuracy": math.inf, "size": 2.0}
"""Goals, and how much perplexity may grow (as a factor, before training) for the sake of speed or size."""
WIDTHS = (0.1, 0.2, 0.3, 0.4)
DEPTHS = (0.1, 0.2, 0.3)
ALIGN = 32
_CONTEXT = 4096
_NEARLY = 0.9
_ON_MCU = ("q8_0",)
"""Types whose arithmetic microcontrollers have."""
_SHARE = {
    "microcontroller": 1.0,
    "phone": 0.4,
    "board": 0.75,
    "mini-pc": 0.75,
    "laptop": 0.5,
    "desktop": 0.9,
    "server": 0.9,
}
"""Of a device's memory, by kind: what a model may have where the user does not say."""


@dataclass(frozen=True, slots=True)
class RunOption:
    """One way to run the model.

    file, memory: bytes, the latter with `context` tokens in the cache. start, full: tokens per second with an
    empty and with a full cache.
    perplexity: expected factor, before training; measured: on a small model, or continued beyond what was
    measured. fits: on the device, in the memory given. exporter, form: the format that has the type.
    """

    cut: Reduction
    type: str
    file: int
    memory: int
    start: PredictedSpeed
    full: PredictedSpeed
    perplexity: float
    measured: bool
    fits: bool
    exporter: Exporter
    form: AdvisedFormat

    @property
    def label(self) -> str:
        """The option in words."""
        return f"{self.cut.label}, {self.type}"


@dataclass(frozen=True, slots=True)
class AdvisedStep:
    """One command, as arguments, and why it comes here."""

    command: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do with a model for a device.

    ram: bytes that may be used. assumed: the user did not say how many. best: the option to take, None where
    none fits. options: all that were estimated. would: what would fit instead, in words. notes: what the
    commands do not say. basis: where the speeds come from.
    """

    model: str
    device: str
    profile: Profile
    goal: str
    context: int
    ram: int
    assumed: bool
    best: RunOption | None
    options: tuple[RunOption, ...]
    verdicts: tuple[Verdict, ...]
    steps: tuple[AdvisedStep, ...]
    would: tuple[str, ...]
    notes: tuple[str, ...]
    basis: str


def advise(
    src: str,
    *,
    device: str = LOCAL,
    ram: str | None = None,
    context: int | None = None,
    goal: str = "balanced",
    progress: Progress | None = None,
) -> Advice:
    """Return how to make the model `src` fit `device`.

    device: `local` (measured once, then remembered), the name of a profile, or a FILE.toml. ram: such as
    `2G`; context: tokens in the cache.
    goal: of `GOALS`.
    Raises UsageError for an unknown device or goal, an amount that is none, or a context the model has not.
    """
    if goal not in GOALS:
        raise UsageError(f"unknown --goal {goal!r}{nearest(goal, GOALS)}; known: {', '.join(GOALS)}")
    said = _bytes_said(ram) if ram is not None else None
    if device != LOCAL:
        load_profile(device)
    model = open_model(src)
    tokens = _context(model, context)
    profile = find_device(device, progress or Silent())
    room = said or (
        probe().available if device == LOCAL else int(_SHARE[profile.kind] * profile.figure("memory"))
    )
    clock = clock_of(profile, remembered() if device != LOCAL else None)
    options = _options(model, profile, clock, tokens, room)
    best = choose(options, goal)
    _, usual = _formats()[0]
    return Advice(
        model=src,
        device=device,
        profile=profile,
        goal=goal,
        context=tokens,
        ram=room,
        assumed=said is None,
        best=best,
        options=tuple(options),
        verdicts=verdicts(
            profile,
            clock,
            Sizes(model, profile, tokens, usual),
            best.type if best and best.form is usual else tuple(usual.types)[-1],
            (WIDTHS[1], DEPTHS[0], ALIGN),
        ),
        steps=_steps(model, src, best, profile) if best else (),
        would=() if best else tuple(_would(model, profile, tokens, room, options)),
        notes=tuple(_notes(profile, best, goal)),
        basis=clock.basis,
    )


def choose(options: Sequence[RunOption], goal: str) -> RunOption | None:
    """Return the option that serves a goal best.

    Of those that fit, the most accurate, or the fastest or smallest that costs no more than the goal allows.

    Nearly as fast, or as small, is enough where it is more accurate. Where all that fit cost more than
    allowed, the most accurate of them; None where none fits.
    """
    fitting = [one for one in options if one.fits]
    if not fitting:
        return None
    allowed = [one for one in fitting if one.perplexity <= GOALS[goal]]
    if goal != "accuracy" and allowed:
        merit = {id(one): 1 / one.file if goal == "size" else one.full.likely for one in allowed}
        fitting = [one for one in allowed if merit[id(one)] >= _NEARLY * max(merit.values())]
    return min(fitting, key=lambda one: (one.perplexity, -one.full.likely))


def _options(model: ModelHandle, profile: Profile, clock: Clock, context: int, room: int) -> list[RunOption]:
    return [
        option
        for exporter, form in _formats()
        for option in _stored(exporter, form, Sizes(model, profile, context, form), profile, clock, room)
    ]


def _formats() -> list[tuple[Exporter, AdvisedFormat]]:
    """Return the formats that can be weighed, the default one first."""
    names = (DEFAULT, *(name for name in EXPORTERS if name != DEFAULT))
    return [(EXPORTERS[name], form) for name in names if (form := EXPORTERS[name].advised)]


def _stored(
    exporter: Exporter, form: AdvisedFormat, sizes: Sizes, profile: Profile, clock: Clock, room: int
) -> Iterator[RunOption]:
    """Yield every reduction of the model in every type of one format."""
    flash = profile.figures.get("flash")
    types = [name for name in form.types if profile.processor != "mcu" or name in _ON_MCU]
    for cut in sizes.cuts(WIDTHS, DEPTHS, ALIGN):
        for stored in filter(sizes.holds, types):
            taken = sizes.taken(cut, stored)
            perplexity, measured = factor(cut.kind, cut.share)
            fits = taken.memory <= room and (flash is None or taken.file <= flash.value)
            yield RunOption(
                cut=cut,
                type=stored,
                file=taken.file,
                memory=taken.memory,
                start=clock.speed(taken.work.at(0.0)),
                full=clock.speed(taken.work),
                perplexity=perplexity * form.types[stored].perplexity,
                measured=measured,
                fits=fits,
                exporter=exporter,
                form=form,
            )


def _steps(model: ModelHandle, src: str, best: RunOption, profile: Profile) -> tuple[AdvisedStep, ...]:
    """Return the commands in order: prune, train, store, evaluate, time."""
    name = "out/" + Path(src).name.removesuffix(".gguf")
    smaller = list(_pruning(model, src, best, name))
    if profile.processor == "mcu":
        return tuple(smaller)
    last = smaller[-1].command[3] if smaller else src
    return (*smaller, *_storing(src, last, best, name), *_timing(best, name, profile))


def _pruning(model: ModelHandle, src: str, best: RunOption, name: str) -> Iterator[AdvisedStep]:
    if best.cut.kind == "dense":
        return
    pruned = f"{name}-pruned"
    how = (
        _width(model, best)
        if best.cut.kind == "width"
        else ("--method", "depth", "--drop-layers", str(len(best.cut.drop)))
    )
    yield AdvisedStep(
        ("prune", src, "-o", pruned, *how),
        "first, while the weights are exact: what matters is judged on them, and rounding comes after",
    )
    yield AdvisedStep(
        ("recover", pruned, "-o", f"{name}-recovered", "--teacher", src),
        "training wins back part of what the cut cost",
    )


def _storing(src: str, last: str, best: RunOption, name: str) -> Iterator[AdvisedStep]:
    """Yield the commands that make the file; last: the model that the steps before have made."""
    bits = best.form.types[best.type].bits
    if bits:
        quantized = f"{name}-{bits}bit"
        yield AdvisedStep(
            ("quantize", last, "-o", quantized, "--bits", str(bits), "--group", "32"),
            "GPTQ loses less than rounding to nearest",
        )
        last = quantized
    file = _file(name, best)
    named = () if best.exporter.name == DEFAULT else ("--format", best.exporter.name)
    # A quantized model keeps its values: a type would round them once more.
    typed = () if bits else ("--type", best.type)
    yield AdvisedStep(
        ("export", last, "-o", file, *named, *typed),
        f"rounded last: the file appears only when {best.exporter.runtime} computes what the model does",
    )
    yield AdvisedStep(
        ("eval", file, "--reference", src),
        "how much was really lost: ours are expectations from another model",
    )


def _timing(best: RunOption, name: str, profile: Profile) -> Iterator[AdvisedStep]:
    if profile.processor == "cpu" and best.form.backend:
        yield AdvisedStep(
            ("bench", _file(name, best), "--backend", best.form.backend, "--threads", str(profile.threads)),
            "on the device: what the prediction is worth",
        )


def _file(name: str, best: RunOption) -> str:
    return f"{name}-{best.type}{best.exporter.suffix}"


def _notes(profile: Profile, best: RunOption | None, goal: str) -> Iterator[str]:
    if best and best.perplexity > GOALS[goal]:
        yield (
            f"everything that fits costs more perplexity than the {GOALS[goal]:g} times of --goal {goal}:"
            " train it afterwards, or give it more memory"
        )
    if best and not best.measured:
        yield "the expected perplexity goes beyond what was measured: judge it by the eval step"
    if profile.processor == "gpu":
        yield (
            "secateur runs llama.cpp on the CPU: on this device time the file with its own llama-bench"
            " -ngl 99"
        )
    if profile.processor == "mcu":
        yield "this version writes no files for microcontrollers"
    if any(not one.confirmed for one in profile.figures.values()):
        yield "some figures of this device are not confirmed: secateur device NAME shows which"


def _width(model: ModelHandle, best: RunOption) -> tuple[str, ...]:
    uneven = naming_of(model).per_block
    spread = ("--allocation", "sensitivity") if uneven and not uneven.tied_only else ()
    return ("--method", "width", "--ratio", f"{best.cut.share:g}", "--align", str(ALIGN), *spread)


def _would(
    model: ModelHandle, profile: Profile, context: int, room: int, options: Sequence[RunOption]
) -> list[str]:
    """Return what would fit instead: a shorter context, more memory, a smaller model, another device."""
    least = min(options, key=lambda one: (one.memory, one.file))
    left = Sizes(model, profile, context, least.form).taken(least.cut, least.type).footprint
    each = left.kv_bytes_per_token()
    fixed = least.memory - each * context
    flash = profile.figures.get("flash")
    found = []
    if flash is not None and least.file > flash.value:
        found.append(
            f"no context helps: {least.label} is a file of {least.file:,} bytes, and the flash holds"
            f" {int(flash.value):,}"
        )
    elif room - fixed >= each:
        found.append(
            f"a context of {(room - fixed) // each} tokens: --ctx {(room - fixed) // each}, with"
            f" {least.label}"
        )
    if flash is None:
        found.append(
            f"{least.memory / 1e6:.0f} MB of memory: --ram {math.ceil(least.memory / 1e6)}M, with"
            f" {least.label}"
        )
    limit = flash.value if flash is not None else room - (fixed - least.file)
    if limit > 0:
        found.append(
            f"a model of less than {_counted(limit / (least.file / left.parameters))} parameters, stored as"
            f" {least.type}, whose cache fits beside it"
        )
    if others := [name for name in profile_names() if _holds(load_profile(name), least)]:
        found.append(f"another device: {', '.join(others)}")
    return found


def _holds(profile: Profile, least: RunOption) -> bool:
    return (
        profile.processor != "mcu" and _SHARE[profile.kind] * profile.figure("memory") >= least.memory + 5e8
    )


def _counted(count: float) -> str:
    return f"{count / 1e9:.3g} billion" if count >= 1e9 else f"{count / 1e6:.3g} million"


def _bytes_said(ram: str) -> int:
    try:
        (limit,) = Target.parse([f"ram={ram}@ctx1"]).limits
    except TargetError:
        raise UsageError(f"--ram {ram!r} is no amount of memory: write 2G, 500MB or 1GiB") from None
    if limit.unit == "%":
        raise UsageError(f"--ram {ram!r} is a share of what? write 2G, 500MB or 1GiB")
    return int(limit.value)


def _context(model: ModelHandle, context: int | None) -> int:
    longest = context_length(naming_of(model).loader, whole_settings(model))
    if context is None:
        return min(_CONTEXT, longest)
    if not 1 <= context <= longest:
        raise UsageError(f"--ctx {context}: {model.source.ref} has a context of 1 to {longest} tokens")
    return context
