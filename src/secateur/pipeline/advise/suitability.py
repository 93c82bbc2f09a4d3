"""Which kinds of pruning and rounding suit a device, and which do not, with the reason in its own figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from secateur.device.decode_model import Clock, TokenWork
from secateur.device.profile import Profile
from secateur.device.quality_model import factor
from secateur.pipeline.advise.size_estimate import Reduction, Sizes

Answer = Literal["yes", "if needed", "no"]
_WORTH = 1.05
_FOUR_BIT = "q4_0"
_TINY = 512 * 1024


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether one kind of change suits the device, and why."""

    kind: str
    answer: Answer
    reason: str


def verdicts(
    profile: Profile, clock: Clock, sizes: Sizes, stored: str, probe: tuple[float, float, int]
) -> tuple[Verdict, ...]:
    """Return the verdicts on every kind, in the order in which they would be applied.

    stored: type of weights the cuts are compared at. probe: share of the FFN and of the blocks that are
    tried, and the multiple that widths keep.
    """
    width, depth, align = probe
    whole, *cuts = sizes.cuts([width], [depth], align)

    def gain(cut: Reduction) -> float:
        return clock.seconds(_halfway(sizes, whole, stored)) / clock.seconds(_halfway(sizes, cut, stored))

    structured = [_structured(cut, gain, clock, sizes, stored) for cut in cuts]
    return (
        *structured,
        _unstructured(profile),
        _two_of_four(profile),
        _adaptive(profile),
        _rounding(profile, clock, sizes, whole),
    )


def _halfway(sizes: Sizes, cut: Reduction, stored: str) -> TokenWork:
    """Return what a token takes on average while the cache fills."""
    work = sizes.taken(cut, stored).work
    return work.at(work.cache / 2)


def _structured(
    cut: Reduction, gain: Callable[[Reduction], float], clock: Clock, sizes: Sizes, stored: str
) -> Verdict:
    """Width is weighed by bytes that are not read, depth also by what a block costs by itself."""
    faster = gain(cut)
    cost, _ = factor(cut.kind, cut.share)
    price = (
        f"{cut.label}: {faster:.2f} times the speed here for about {cost:.2f} times the perplexity before"
        " training"
    )
    if cut.kind == "width":
        why = (
            "for accuracy; cuts bytes, which is what a token waits for"
            if faster >= _WORTH
            else "for memory only: a token waits for other things here than the bytes of FFNs"
        )
    else:
        work = _halfway(sizes, cut, stored)
        fixed = work.layers * clock.layer / clock.seconds(work)
        why = f"for latency; {fixed:.0%} of a token's time goes to blocks as such, and the cache shrinks too"
    return Verdict(cut.kind, "if needed", f"{why} ({price})")


def _unstructured(profile: Profile) -> Verdict:
    if profile.processor == "gpu":
        return Verdict(
            "unstructured",
            "no",
            "its matrix units multiply scattered zeros like any number, and the file stays as large",
        )
    if profile.processor == "mcu":
        return Verdict(
            "unstructured", "no", "an index for each weight that stays takes more flash than int8 zeros do"
        )
    can = (
        " (its AVX-512 VBMI2 could unpack them, with kernels that llama.cpp has not)"
        if "avx512_vbmi2" in profile.isa.names
        else ""
    )
    return Verdict(
        "unstructured",
        "no",
        f"llama.cpp reads and multiplies zeros like any number: neither speed nor size{can}",
    )


def _two_of_four(profile: Profile) -> Verdict:
    if profile.sparse_tensor_cores:
        reason = (
            "its tensor cores skip two of four, which speeds up prompts and batches in runtimes with such"
            " kernels; one sequence in llama.cpp gains nothing"
        )
        return Verdict("2:4", "if needed", reason)
    return Verdict("2:4", "no", "no sparse tensor cores: the zeros are multiplied")


def _adaptive(profile: Profile) -> Verdict:
    if profile.processor == "mcu":
        return Verdict(
            "runtime-adaptive",
            "no",
            "weights lie in flash and nothing else asks for memory: there is nothing to give back",
        )
    if not profile.moving_memory:
        return Verdict(
            "runtime-adaptive",
            "no",
            "the memory is the model's alone, so a fixed size fitted to it is better at the same bytes",
        )
    return Verdict(
        "runtime-adaptive", "if needed", "other programs take and give back memory while the model runs"
    )


def _rounding(profile: Profile, clock: Clock, sizes: Sizes, whole: Reduction) -> Verdict:
    if profile.processor == "mcu":
        flash = profile.figure("flash")
        return Verdict(
            "quantization",
            "yes",
            f"8 bits: {flash / 1e6:.3g} MB of flash hold weights and program; plan for models of"
            f" {_TINY // 1024} KB at most",
        )
    plain, eight, four = (clock.seconds(_halfway(sizes, whole, kind)) for kind in ("f16", "q8_0", _FOUR_BIT))
    faster = f"q8_0 {plain / eight:.2f} and q4_0 {plain / four:.2f} times the speed of f16"
    if plain / four < _WORTH:
        return Verdict(
            "quantization",
            "if needed",
            f"for memory only: {faster}, since a token waits for other things here than bytes",
        )
    best = "4 bits" if eight / four >= _WORTH else "8 bits"
    return Verdict(
        "quantization",
        "yes",
        f"{best}: {faster}; it costs less perplexity than any pruning of the same bytes, and comes last",
    )
