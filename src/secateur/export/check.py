"""Compare what a runtime computes from an exported file with what the model computes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from secateur.core.errors import VerificationError
from secateur.core.progress import Progress
from secateur.runtime import Backend

# Measured on every family and on SmolLM2-135M, with a margin: for all types but f32, llama.cpp rounds what a matrix is
# multiplied with as well, to 16 or to 8 bits, and that is no part of the file.
TOLERANCES = {"f32": 1e-5}
TOLERANCE = 1e-2


def largest_divergence(backend: Backend, prompts: Sequence[Sequence[int]], expected: Sequence[NDArray[np.float64]], progress: Progress) -> float:
    """Return the largest KL(expected || backend), in nats, of the next token after each of `prompts`.

    expected: natural logarithms of probabilities, `[vocab_size]` for each prompt. Raises VerificationError for another vocabulary or a NaN.
    """
    progress.start("check", len(prompts))
    found = []
    for prompt, ours in zip(prompts, expected, strict=True):
        theirs = backend.logprobs(prompt).astype(np.float64)
        if theirs.shape != ours.shape:
            raise VerificationError(f"{backend.name} has a vocabulary of {len(theirs)} tokens where the model has {len(ours)}")
        found.append(float(np.sum(np.exp(ours) * (ours - theirs))))
        progress.step()
    return float(np.max(found))
