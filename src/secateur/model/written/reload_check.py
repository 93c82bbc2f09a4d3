"""Load a written folder and compare what it computes with what it should compute."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from secateur.model.handle import open_model
from secateur.tensors.layer_stream import LayerStream
from secateur_runtime.errors import VerificationError

_TOLERANCE = 1e-4
"""Relative. Cutting a matrix changes the order in which its products are summed, nothing else."""


def last_states(stream: LayerStream, tokens: Tensor) -> Tensor:
    """Return the output of a model's last block, `[windows, tokens, hidden_size]`.

    tokens: token ids, `[windows, tokens]`.
    """
    (states,) = stream.embed([tokens])
    for index in range(len(stream)):
        with stream.open(index) as live:
            states = live(states)
    return states


@torch.no_grad()
def model_logits(stream: LayerStream, tokens: Tensor, positions: Tensor | None = None) -> Tensor:
    """Return the logits `[windows * positions, vocab_size]` of a streamed model, window after window.

    tokens: ids `[windows, tokens]`. positions: indices into each window, int64 `[positions]`; None for all.
    """
    states = last_states(stream, tokens)
    chosen = states if positions is None else states[:, positions]
    return torch.cat(list(stream.logits(chosen.flatten(0, 1))))


def difference(found: Tensor, meant: Tensor) -> float:
    """Return the largest absolute difference, relative to the largest absolute value of `meant`."""
    return float((found - meant).abs().max() / meant.abs().max())


def reloaded_difference(folder: Path, tokens: Tensor, meant: Tensor) -> float:
    """Open a written folder and return how far its last hidden states are from `meant`, relative.

    tokens: ids `[windows, tokens]`; meant: `[windows, tokens, hidden_size]` of the first windows at least.
    """
    return difference(last_states(open_model(str(folder)).stream(), tokens[: len(meant)]), meant)


def accept(found: float) -> None:
    """Raise VerificationError if a relative difference is larger than rounding."""
    if not found <= _TOLERANCE:
        raise VerificationError(
            f"the written model does not compute what was meant (relative difference {found:.1e}); nothing"
            " was kept"
        )
