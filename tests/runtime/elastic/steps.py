"""A whole model of transformers run step by step, parts of it silenced, and the memory of this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, DynamicCache


def anonymous() -> int:
    """Bytes of anonymous pages of this process."""
    rows = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return int(next(row.split()[1] for row in rows if row.startswith("Anonymous:"))) * 1024


def transformers(folder: Path | str) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def stepped(model: Any, past: DynamicCache, tokens: list[int], silent: dict[str, Tensor]) -> Tensor:
    """Run more tokens through the whole model of transformers.

    silent: module -> mask of its inputs (or all of its output).
    """
    handles = []
    for name, mask in silent.items():
        module = model.model.get_submodule(name)
        if mask.dim():
            handles.append(
                module.register_forward_pre_hook(lambda _module, inputs, mask=mask: (inputs[0] * mask,))
            )
        else:
            handles.append(module.register_forward_hook(lambda _module, _inputs, output: output * 0))
    positions = torch.arange(past.get_seq_length(), past.get_seq_length() + len(tokens))[None]
    with torch.no_grad():
        logits: Tensor = model(
            torch.tensor([tokens]), position_ids=positions, past_key_values=past, use_cache=True
        ).logits[0, -1]
    for handle in handles:
        handle.remove()
    return logits
