"""Compare a written model, loaded again, with the model that was meant."""

from __future__ import annotations

from torch import Tensor

from secateur.tensors.layer_stream import LayerStream
from secateur_runtime.errors import VerificationError

_TOLERANCE = 1e-4
"""Cutting a matrix changes the order in which its products are summed, nothing else."""


def last_states(stream: LayerStream, tokens: Tensor) -> Tensor:
    """Return the output of a model's last block, `[windows, tokens, hidden_size]`.

    tokens: token ids, `[windows, tokens]`.
    """
    (states,) = stream.embed([tokens])
    for index in range(len(stream)):
        with stream.open(index) as live:
            states = live(states)
    return states


def difference(found: Tensor, meant: Tensor) -> float:
    """Return the largest absolute difference, relative to the largest absolute value of `meant`."""
    return float((found - meant).abs().max() / meant.abs().max())


def accept(found: float) -> None:
    """Raise VerificationError if a relative difference is larger than rounding."""
    if not found <= _TOLERANCE:
        raise VerificationError(
            f"the written model does not compute what was meant (relative difference {found:.1e}); nothing"
            " was kept"
        )
