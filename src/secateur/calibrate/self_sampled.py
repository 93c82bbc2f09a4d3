"""Calibration text sampled from the model itself, for when there is no data."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from secateur.model.full_model import load_whole
from secateur.model.handle import ModelHandle
from secateur_runtime.errors import UsageError
from secateur_runtime.sensors.system_memory import system_memory

_BATCH = 32
_BYTES_PER_PARAMETER = 2


def sample_windows(model: ModelHandle, samples: int, window: int, seed: int) -> Tensor:
    """Return token ids `[samples, window]` that the model draws at temperature 1 in bfloat16.

    Each window starts with a random token. Raises UsageError if the whole model, which sampling needs, does
    not fit in memory.
    """
    needed = model.graph.parameters * _BYTES_PER_PARAMETER
    free = system_memory().free
    if needed > free:
        raise UsageError(
            f"--calib self needs the whole model in memory ({needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB"
            " free): name a text instead"
        )
    whole = load_whole(model, torch.bfloat16)
    torch.manual_seed(seed)
    first = torch.randint(model.graph.vocab_size, (samples, 1))
    drawn = [
        whole.generate(
            input_ids=start,
            attention_mask=torch.ones_like(start),
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            min_new_tokens=window - 1,
            max_new_tokens=window - 1,
            pad_token_id=0,
        )
        for start in first.split(_BATCH)
    ]
    return torch.cat(drawn)


PROBE = (8, 64)
"""Windows and tokens of a run that needs no calibration text."""


def probe(model: ModelHandle, alive: Sequence[int] | None = None) -> Tensor:
    """Return random token ids `[8, 64]` to compare outputs with where there is no calibration text.

    alive: the tokens to draw from; all of them by default.
    """
    ids = torch.tensor(alive or range(model.graph.vocab_size))
    return ids[torch.randint(len(ids), PROBE, generator=torch.Generator().manual_seed(0))]
