"""Load what was written and compare it with what was meant."""

from __future__ import annotations

import torch
from torch import Tensor

from secateur.tensors.layer_stream import LayerStream
from secateur_runtime.errors import VerificationError

_TOLERANCE = 1e-4
"""Cutting a matrix changes the order in which its products are summed, nothing else."""


def last_states(stream: LayerStream, tokens: Tensor) -> Tensor:
    """Return the last hidden states `[windows, tokens, hidden_size]` of a model for token ids `[windows, tokens]`."""
    (states,) = stream.embed([tokens])
    for index in range(len(stream)):
        with stream.open(index) as live:
            states = live(states)
    return states


@torch.no_grad()
def model_logits(stream: LayerStream, tokens: Tensor, positions: Tensor | None = None) -> Tensor:
    """Return the logits `[windows * positions, vocab_size]`, window after window, for ids `[windows, tokens]`.

    positions: indices into each window, int64 `[positions]`; None for all.
    """
    states = last_states(stream, tokens)
    chosen = states if positions is None else states[:, positions]
    return torch.cat(list(stream.logits(chosen.flatten(0, 1))))


def difference(found: Tensor, meant: Tensor) -> float:
    """Return the largest difference relative to the largest value."""
    return float((found - meant).abs().max() / meant.abs().max())


def accept(found: float) -> None:
    """Raise VerificationError if a relative difference is more than rounding."""
    if not found <= _TOLERANCE:
        raise VerificationError(
            f"the written model does not compute what was meant (relative difference {found:.1e}); nothing"
            " was kept"
        )
