"""Run a teacher once over a text, and store the targets that a student needs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from secateur.core.progress import Progress
from secateur.train.losses import Targets, likeliest


@torch.no_grad()
def teach(
    model: Any,
    tokens: Tensor,
    k: int,
    temperature: float,
    *,
    device: torch.device,
    bfloat16: bool,
    states: bool,
    progress: Progress,
) -> Targets:
    """Return the predictions of `model` for windows of token ids.

    tokens: `[windows, length]`.
    k: likeliest tokens stored for each position, 6 bytes each.
    states: store the last hidden states too, 2 bytes for each channel and position.
    """
    model.to(device).eval()
    progress.start("teacher", len(tokens))
    found: list[tuple[Tensor, Tensor, Tensor | None]] = []
    for window in tokens.split(1):
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            output = model(input_ids=window.to(device), use_cache=False, output_hidden_states=states)
        chosen, logs = likeliest(output.logits, k, temperature)
        found.append(
            (chosen.cpu(), logs.cpu(), output.hidden_states[-1].bfloat16().cpu() if states else None)
        )
        progress.step()
    kept = [state for _, _, state in found if state is not None]
    return Targets(
        torch.cat([chosen for chosen, _, _ in found]),
        torch.cat([logs for _, logs, _ in found]),
        torch.cat(kept) if kept else None,
    )
