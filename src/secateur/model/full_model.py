"""Load a whole model into transformers, for work that cannot be done block by block."""

from __future__ import annotations

from typing import Any

import torch
from transformers.initialization import no_init_weights

from secateur.model.handle import ModelHandle
from secateur.model.transformers_model import build_model


def load_whole(model: ModelHandle, dtype: torch.dtype = torch.float32) -> Any:
    """Return the transformers model with every stored weight, all of them of one `dtype`."""
    # Weights that are never set take no memory before those of the source replace them.
    with no_init_weights():
        built = build_model(model.source.config)
    state = {name: model.source.read(name).to(dtype) for name in model.graph.tensors}
    built.load_state_dict(state, strict=False, assign=True)
    built.tie_weights()
    return built.eval()
