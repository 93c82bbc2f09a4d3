"""How long a token takes: bytes to read over the rate at which they come, and a fixed cost for every block.

The roofline (Williams et al., 2009, doi:10.1145/1498765.1498785) of decoding one sequence is memory
bandwidth. Small models do not reach it: what a block costs however narrow it is weighs as much as its bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from secateur.device.profile import Profile, Published, Rates

LAYER = 100e-6
_UNSURE = 3.0
"""Seconds that a block costs by itself where no measurement says, and the factor by which that may be off:
the published speeds give 31 to 210 us.
"""
_EFFICIENCY = {"cpu": 0.5, "gpu": 0.7}
"""Share of the theoretical bandwidth where no measurement says: the published speeds give 0.28 to 0.67 for
CPUs and 0.56 to 1.03 for GPUs.
"""
_MCU_EFFICIENCY = 0.35
_MEASURED = 0.15
_PUBLISHED = 0.3
_STREAM = 0.35
_GUESSED = 0.6
_OF_STREAM = 0.8
_ENTRY = 5e-9
"""Seconds for an entry of the vocabulary where no measurement says: choosing a token."""
_TELLING = 1.2


@dataclass(frozen=True, slots=True)
class TokenWork:
    """What one token takes of a model.

    weights: bytes by type, those of the output matrix as `OUTPUT`. vocabulary: its entries. cache: bytes of
    KV cache at the context meant.
    """

    weights: Mapping[str, float]
    layers: int
    vocabulary: int
    cache: float = 0.0

    def at(self, cache: float) -> TokenWork:
        """Return the same with another cache."""
        return replace(self, cache=cache)


@dataclass(frozen=True, slots=True)
class PredictedSpeed:
    """Tokens per second: the prediction, and the ends of its interval."""

    low: float
    likely: float
    high: float


@dataclass(frozen=True, slots=True)
class Clock:
    """Predicts seconds for each token on one device.

    weights: bytes per second by type; others come at `other`. layer, entry: seconds for each block and each
    entry of the vocabulary.
    within: the interval reaches so far, as a share of the time. unsure: factor by which `layer` may be off.
    basis: where all this comes from, in words.
    """

    weights: Mapping[str, float]
    other: float
    cache: float
    layer: float
    entry: float
    within: float
    basis: str
    unsure: float = 1.0

    def seconds(self, work: TokenWork) -> float:
        """Return the predicted seconds for a token."""
        read = sum(count / self.weights.get(kind, self.other) for kind, count in work.weights.items())
        return read + work.layers * self.layer + work.vocabulary * self.entry + work.cache / self.cache

    def speed(self, work: TokenWork) -> PredictedSpeed:
        """Return tokens per second with an interval."""
        longest, likely, shortest = (
            replace(self, layer=self.layer * by).seconds(work) for by in (self.unsure, 1.0, 1 / self.unsure)
        )
        return PredictedSpeed(1 / (longest * (1 + self.within)), 1 / likely, (1 + self.within) / shortest)


def clock_of(profile: Profile, local: Profile | None = None) -> Clock:
    """Return the clock of a device, from the best there is.

    Measured on it, published for it, or estimated from its bandwidth.

    local: this machine, measured; it says what share of a measured bandwidth llama.cpp reaches where the
    device itself does not.
    """
    if profile.rates:
        return _measured(profile.rates)
    if profile.processor == "mcu":
        rate = _MCU_EFFICIENCY * profile.figure("matrix") / 2
        basis = (
            f"{_MCU_EFFICIENCY:.0%} of the products a second in the profile, a byte each; nothing was"
            " measured"
        )
        return Clock({}, rate, rate, 0.0, 0.0, 1.0, basis)
    if profile.published:
        return _published(profile)
    return _estimated(profile, local)


def _measured(rates: Rates) -> Clock:
    slowest = min(rates.weights.values())
    basis = f"{rates.runtime}, {rates.threads} threads, measured on it with synthetic models ({rates.taken})"
    return Clock(rates.weights, slowest, rates.cache, rates.layer, 0.0, max(_MEASURED, rates.spread), basis)


def _published(profile: Profile) -> Clock:
    layer, rate, known = fit(profile.published)
    clock = Clock({}, rate, rate, layer, 0.0, 0.0, "", 1.0 if known else _UNSURE)
    errors = [
        abs(clock.seconds(TokenWork({"": one.bytes}, one.layers, 0)) * one.tokens_per_second - 1)
        for one in profile.published
    ]
    count = len(profile.published)
    said = "" if known else ", the latter assumed"
    basis = (
        f"{count} published decode speed{'s' if count > 1 else ''}: {rate / 1e9:.3g} GB/s and"
        f" {layer * 1e6:.0f} us a block{said}"
    )
    return replace(clock, within=max(_PUBLISHED, 1.25 * max(errors)), basis=basis)


def _estimated(profile: Profile, local: Profile | None) -> Clock:
    """Return what the bandwidth allows.

    A measured one with the share of it that this machine reaches, or a part of the theoretical one.
    """
    if "stream" in profile.figures:
        reached = share_of_stream(local) if local else None
        share = reached or _OF_STREAM
        within = _STREAM
        said = f"measured bandwidth, {'as on this machine' if reached else 'by assumption'}"
    else:
        share = _EFFICIENCY[profile.processor]
        within = _GUESSED
        said = "theoretical bandwidth; nobody's measurement of this device was found"
    rate = share * profile.figure("stream" if "stream" in profile.figures else "bandwidth")
    return Clock({}, rate, rate, LAYER, _ENTRY, within, f"{share:.0%} of the {said}", _UNSURE)


def share_of_stream(local: Profile) -> float | None:
    """Return what share of the bandwidth it measured the machine reaches with 16-bit weights.

    None where it was not measured.
    """
    if local.rates is None or "stream" not in local.figures or "f16" not in local.rates.weights:
        return None
    return min(1.0, local.rates.weights["f16"] / local.figure("stream"))


def fit(published: Sequence[Published]) -> tuple[float, float, bool]:
    """Return seconds for each block, bytes per second, and whether the speeds tell the former.

    Least squares of relative errors, neither negative.

    Where the models are too alike in bytes for each block to tell, `LAYER` is taken.
    """
    scale = np.array([one.tokens_per_second for one in published])
    blocks, size = (
        np.array([getattr(one, name) for one in published], dtype=float) * scale
        for name in ("layers", "bytes")
    )
    density = size / blocks
    if density.max() >= _TELLING * density.min():
        found = nonnegative(np.stack([blocks, size / 1e9], axis=1))
        if found[1] > 0:
            return float(found[0]), 1e9 / float(found[1]), True
    return LAYER, float((size / np.maximum(1 - LAYER * blocks, 0.1)).mean()), False


def nonnegative(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what, times each of `rows`, comes nearest to 1 by least squares: `[columns]`, none negative.

    Columns whose least-squares weight is negative leave, the most negative first; enough for a few columns
    that hardly depend on each other.
    """
    scale = np.abs(rows).max(axis=0)
    used = list(range(rows.shape[1]))
    found = np.zeros(rows.shape[1])
    while used:
        solved = np.linalg.lstsq(rows[:, used] / scale[used], np.ones(len(rows)), rcond=None)[0]
        if solved.min() >= 0:
            found[used] = solved / scale[used]
            break
        used.pop(int(solved.argmin()))
    return found
