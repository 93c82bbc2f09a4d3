"""Compare the logits that a runtime computes from an exported file with those of the model.

For all types but F32, llama.cpp also rounds the inputs of matrix products, to 16 or to 8 bits. That is no
part of the file, and its effect depends on the model: from 1e-7 to 1e-2 nats. So it is measured on the model
itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from secateur.runtime import Backend
from secateur_runtime.errors import VerificationError

Logprobs = Sequence[NDArray[np.float64]]
"""Natural logarithms of next-token probabilities, `[vocab_size]` for each prompt."""

EXACT = 1e-5
# Rounding is not done in the same order everywhere; measured ratios lie between 0.5 and 3.
_MARGIN = 10
_HALF = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
_BLOCK = 32
_LEVELS = 127


def largest_divergence(expected: Logprobs, found: Logprobs) -> float:
    """Return the largest KL(expected || found) over the prompts, in nats.

    Raises VerificationError for another vocabulary.
    """
    divergences = []
    for ours, theirs in zip(expected, found, strict=True):
        if theirs.shape != ours.shape:
            raise VerificationError(
                f"the file has a vocabulary of {len(theirs)} tokens where the model has {len(ours)}"
            )
        divergences.append(float(np.sum(np.exp(ours) * (ours - theirs))))
    return float(np.max(divergences))


def ask(backend: Backend, prompts: Sequence[Sequence[int]]) -> Logprobs:
    """Return what `backend` predicts after each of `prompts`."""
    return [backend.logprobs(prompt).astype(np.float64) for prompt in prompts]


def limit(rounding: float) -> float:
    """Return the largest divergence, in nats, of a correct file; rounding: that of rounded matrix inputs."""
    return EXACT + _MARGIN * rounding


@contextmanager
def inputs_rounded(kind: str) -> Iterator[None]:
    """Round the inputs of all linear layers of this process, until exit, as llama.cpp does.

    kind: type of the weights, such as `q8_0`.
    """
    hooks: Any = nn.modules.module
    rounding = hooks.register_module_forward_pre_hook(
        lambda module, inputs: (
            (_rounded(inputs[0], kind), *inputs[1:]) if isinstance(module, nn.Linear) else None
        )
    )
    try:
        yield
    finally:
        rounding.remove()


def _rounded(values: Tensor, kind: str) -> Tensor:
    if kind in _HALF:
        return values.to(_HALF[kind]).float()
    blocks = values.reshape(-1, _BLOCK)
    step = (blocks.abs().amax(1, keepdim=True) / _LEVELS).clamp(min=torch.finfo(torch.float32).tiny)
    return ((blocks / step).round() * step.half().float()).reshape(values.shape)
