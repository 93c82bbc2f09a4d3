"""Gradients of the next-token loss with one block in memory at a time, from the last block to the first."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from secateur.calibrate.input_statistics import BATCH_TOKENS
from secateur.core.progress import Progress, Silent
from secateur.tensors.layer_stream import LayerStream, LiveBlock


@dataclass(frozen=True, slots=True)
class BlockGradients:
    """Gradients of the loss in one block.

    weights: tensor name -> gradient of the negative log likelihood, mean over predicted tokens, of the
    weight's shape.
    fisher: `attn` and `ffn` -> mean over tokens of g gᵀ, `[hidden_size, hidden_size]`, with g the gradient of
    the summed negative log likelihood of a window with respect to what that sub-block adds to the hidden
    state.
    """

    index: int
    weights: Mapping[str, Tensor]
    fisher: Mapping[str, Tensor]


def gradients(
    stream: LayerStream,
    tokens: Tensor,
    *,
    weights: Collection[str] = (),
    fisher: bool = False,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> Iterator[BlockGradients]:
    """Yield the gradients of every block, from the last to the first.

    tokens: ids `[windows, length]`; each window predicts its last `length - 1` tokens.
    weights: names of tensors within blocks.
    fisher: whether to gather the second moments of the sub-blocks' gradients.
    folder: where the hidden states before every block are kept while this runs: 4 bytes × blocks × tokens ×
    `hidden_size`.
    """
    progress = progress or Silent()
    progress.start("gradients", 2 * len(stream))
    # the file has no name, so nothing is left behind however the run ends
    with tempfile.TemporaryFile(dir=folder) as file:
        scratch = _Scratch(file, len(stream) + 1, (*tokens.shape, stream.hidden_size))
        _forward(stream, tokens, scratch, progress)
        _top(stream, tokens, scratch)
        for index in reversed(range(len(stream))):
            with stream.open(index) as block:
                names = tuple(name for name in block.block.tensors if name in set(weights))
                found = _backward(block, scratch.slot(index), scratch.slot(len(stream)), names, fisher)
            progress.step(f"block {index}")
            yield found


class _Scratch:
    """Arrays of one shape in a file, of which only those in use are mapped."""

    def __init__(self, file: IO[bytes], slots: int, shape: tuple[int, ...]) -> None:
        self._file = file
        self._shape = shape
        self._bytes = 4 * math.prod(shape)
        file.truncate(slots * self._bytes)

    def slot(self, index: int) -> list[Tensor]:
        """Return views `[windows, tokens, hidden_size]` of about `BATCH_TOKENS` tokens each."""
        whole = torch.from_numpy(np.memmap(self._file, np.float32, "r+", index * self._bytes, self._shape))
        return list(whole.split(_windows(self._shape[1])))


def _windows(length: int) -> int:
    return max(1, BATCH_TOKENS // length)


def _forward(stream: LayerStream, tokens: Tensor, scratch: _Scratch, progress: Progress) -> None:
    """Fill the scratch file with the input of every block and the output of the last."""
    for batch, embedded in zip(
        scratch.slot(0), stream.embed(tokens.split(_windows(tokens.shape[1]))), strict=True
    ):
        batch.copy_(embedded)
    for index in range(len(stream)):
        with stream.open(index) as block:
            for batch, after in zip(scratch.slot(index), scratch.slot(index + 1), strict=True):
                after.copy_(block(batch))
        progress.step(f"block {index}")


def _top(stream: LayerStream, tokens: Tensor, scratch: _Scratch) -> None:
    """Replace the output of the last block by the gradient of the summed loss there."""
    batches = scratch.slot(len(stream))
    targets = tokens.split(_windows(tokens.shape[1]))
    pairs = (
        (batch[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        for batch, ids in zip(batches, targets, strict=True)
    )
    for batch, found in zip(batches, stream.pull_nll(pairs), strict=True):
        batch[:, :-1] = found.view_as(batch[:, :-1])
        batch[:, -1] = 0


def _backward(
    block: LiveBlock, inputs: list[Tensor], outputs: list[Tensor], names: tuple[str, ...], fisher: bool
) -> BlockGradients:
    """Return the gradients of a block; those in `outputs`, at its output, become those at its input."""
    predicted = sum(batch.shape[0] * (batch.shape[1] - 1) for batch in inputs)
    seen = sum(batch.shape[0] * batch.shape[1] for batch in inputs)
    width = inputs[0].shape[-1]
    weights = {name: torch.zeros_like(block.weight(name)) for name in names}
    moments = {part: torch.zeros(width, width) for part in ("attn", "ffn")} if fisher else {}
    for hidden, gradient in zip(inputs, outputs, strict=True):
        pulled = block.pull(hidden, gradient, names)
        for name, found in pulled.weights.items():
            weights[name].add_(found, alpha=1 / predicted)
        for part, moment in moments.items():
            flat = (pulled.middle if part == "attn" else gradient).flatten(0, 1)
            moment.addmm_(flat.T, flat, alpha=1 / seen)
        gradient.copy_(pulled.hidden)
    return BlockGradients(block.block.index, weights, moments)
