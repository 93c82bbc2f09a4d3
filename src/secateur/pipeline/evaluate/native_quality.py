"""Quality of a model as the native backend runs it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from secateur.core.progress import Progress
from secateur.measure.perplexity import Quality, compare, final_states
from secateur.model.block_stream import POSITIONS, ModelStream
from secateur.model.handle import ModelHandle
from secateur.pipeline.evaluate.native_model import NativeOptions, run_natively
from secateur.runtime.native import Native
from secateur_runtime.kernels.library import require_kernels


def measure_natively(
    model: ModelHandle,
    how: NativeOptions,
    windows: Tensor,
    progress: Progress,
    reference: ModelStream | None = None,
) -> Quality:
    """Return the quality of `model` as it runs natively, on `windows` `[n, length]`.

    See `measure.perplexity.measure`.

    Raises UsageError where there are no kernels, and as `run_natively` does.
    """
    logits = native_logits(model, how, windows.tolist(), progress)
    progress.start("evaluate", len(windows) + (len(reference) if reference else 0))
    dense = reference.logits(final_states(reference, windows, progress)) if reference else None
    return compare(logits, windows, dense)


def native_logits(
    model: ModelHandle, how: NativeOptions, rows: Sequence[Sequence[int]], progress: Progress
) -> Iterator[Tensor]:
    """Yield the logits `[positions, vocab_size]` of each position but the last of every row of token ids.

    They come in chunks of as many positions as a stream of blocks yields.
    Raises UsageError where there are no kernels, and as `run_natively` does.
    """
    require_kernels("evaluate without --backend native")
    backend = run_natively(model, how)
    assert isinstance(backend, Native)
    return _logits(backend, rows, progress)


def _logits(backend: Native, rows: Sequence[Sequence[int]], progress: Progress) -> Iterator[Tensor]:
    held = torch.empty(0)
    for row in rows:
        for logits in backend.logits(row[:-1]):
            held = torch.cat([held.view(-1, logits.shape[1]), torch.from_numpy(logits)])
            while len(held) >= POSITIONS:
                yield held[:POSITIONS]
                held = held[POSITIONS:]
        progress.step()
    if len(held):
        yield held
