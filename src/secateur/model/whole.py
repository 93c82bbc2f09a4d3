"""Load a whole model into transformers, for what cannot be done block by block."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from secateur.model.opened import Opened


def load_whole(model: Opened) -> Any:
    """Return the stock transformers model, float32, with every stored weight."""
    built = AutoModelForCausalLM.from_config(AutoConfig.for_model(**model.source.config), dtype=torch.float32)
    state = {name: model.source.read(name).float() for name in model.graph.tensors}
    built.load_state_dict(state, strict=False, assign=True)
    built.tie_weights()
    return built.eval()
