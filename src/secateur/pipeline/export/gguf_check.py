"""Prove that llama.cpp computes from a file what the model computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from secateur.calibrate.text import read_text, windows
from secateur.core.progress import Progress
from secateur.export.gguf.logits_check import ask, inputs_rounded, largest_divergence, limit
from secateur.export.gguf.tokenizer import PROBE
from secateur.model.block_stream import ModelStream
from secateur.model.handle import ModelHandle
from secateur.model.written.reload_check import model_logits
from secateur.runtime.isolated import Isolated
from secateur_runtime.errors import SourceError, VerificationError

_PROMPTS = 4
_PROMPT_TOKENS = 64
_CHARACTERS = 4000


def check_file(
    model: ModelHandle, stream: ModelStream, path: Path, kind: str, context: int, progress: Progress
) -> float:
    """Return the largest divergence, in nats, of llama.cpp's next-token probabilities from those of `stream`.

    stream: `model` with its weights rounded as the file holds them. kind: their type. context: longest prompt
    that is comparable.
    Raises VerificationError if the file cannot be loaded, cuts text into other tokens, or predicts otherwise.
    """
    length = min(_PROMPT_TOKENS, context - 1)
    tokenizer = model.source.tokenizer()
    text = read_text("builtin")
    tokens = windows(text, tokenizer, length, _PROMPTS)
    progress.start("check", 2 + (kind != "f32"))
    expected = _predictions(stream, tokens)
    progress.step("secateur")
    allowed = limit(0.0)
    if kind != "f32":
        with inputs_rounded(kind):
            allowed = limit(largest_divergence(expected, _predictions(stream, tokens)))
        progress.step("rounding")
    try:
        with Isolated(
            "llama.cpp",
            "secateur.runtime.llamacpp:LlamaCpp",
            {"path": str(path), "context": length + 1, "exact": True},
        ) as backend:
            if any(
                backend.tokenize(sample) != list(tokenizer(sample, verbose=False)["input_ids"])
                for sample in (PROBE, text.text[:_CHARACTERS])
            ):
                raise VerificationError(
                    f"llama.cpp cuts text into other tokens than the tokenizer of {model.source.ref}"
                )
            kl = largest_divergence(
                expected, ask(backend, [row[:end].tolist() for row in tokens for end in _ends(length)])
            )
    except SourceError as error:
        raise VerificationError(str(error)) from None
    progress.step("llama.cpp")
    if not kl <= allowed:
        raise VerificationError(
            f"llama.cpp computes other probabilities from the file than the model gives (KL {kl:.1e} nats,"
            f" {allowed:.1e} allowed)"
        )
    return kl


def _ends(length: int) -> tuple[int, ...]:
    return (length // 2, length)


def _predictions(stream: ModelStream, tokens: torch.Tensor) -> list[NDArray[np.float64]]:
    """Return log probabilities `[vocab_size]`, in nats, of the token after half and after all of each row.

    tokens: ids `[rows, tokens]`.
    """
    ends = torch.tensor(_ends(tokens.shape[1])) - 1
    logits = model_logits(stream, tokens, ends).double()
    return list(torch.log_softmax(logits, -1).numpy())
