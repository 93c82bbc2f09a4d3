"""Small ladders with random sizes, losses and prices."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from hypothesis import strategies as st

from secateur_runtime.ladder_costs import Choices, Mask, Observation

STEPS = ("1.ffn:64", "2.attn", "1.ffn", "2.ffn", "3.kv:1", "3.attn", "1.attn")


def choices_of(
    units: Sequence[str], freed: Sequence[tuple[int, int]], prices: Sequence[float], losses: Sequence[float]
) -> Choices:
    """Return a ladder of which each step frees so many bytes of weights, and of cache per position."""
    weights, cache = (
        np.array([base, *(-each[side] for each in freed)], dtype=float).cumsum()
        for side, base in ((0, 10_000), (1, 1_000))
    )
    return Choices(
        ladder="sha256:tiny",
        units=tuple(units),
        losses=np.array(losses, dtype=float),
        prices=np.array(prices, dtype=float),
        weights=weights,
        cache=cache,
        flops=weights * 2,
        activations=lambda batch, tokens: 7.0 * batch * tokens,
    )


@st.composite
def ladders(draw: st.DrawFn) -> Choices:
    """Draw a ladder of up to seven steps; only attention frees cache."""
    units = STEPS[: draw(st.integers(1, len(STEPS)))]
    freed = [
        (draw(st.integers(1, 900)), 0 if ".ffn" in unit else draw(st.integers(1, 100))) for unit in units
    ]
    prices = [draw(st.floats(0, 2)) for _ in units]
    losses = [draw(st.floats(0.5, 4)) for _ in range(len(units) + 1)]
    return choices_of(units, freed, prices, losses)


@st.composite
def observations(draw: st.DrawFn, choices: Choices) -> Observation:
    """Draw a moment at which the ladder has something to decide, most of the time."""
    batch, tokens, remaining = draw(st.integers(1, 8)), draw(st.integers(1, 20)), draw(st.integers(0, 9))
    seen = Observation(batch=batch, tokens=tokens, remaining=remaining, available=0)
    whole = choices.missing(seen)
    return Observation(
        batch=batch,
        tokens=tokens,
        remaining=remaining,
        available=whole * draw(st.floats(0.2, 1.1)),
        level=draw(st.integers(0, len(choices.units))),
    )


def every_mask(choices: Choices) -> list[Mask]:
    """Return every set of steps that may be taken."""
    masks = (np.array(bits) for bits in product([False, True], repeat=len(choices.units)))
    return [
        mask
        for mask in masks
        if all(
            before is None or mask[before] or not mask[index] for index, before in enumerate(choices.before)
        )
    ]
