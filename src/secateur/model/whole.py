"""Load a whole model into transformers, for what cannot be done block by block."""

from __future__ import annotations

from typing import Any

from secateur.model.build import build_model
from secateur.model.opened import Opened


def load_whole(model: Opened) -> Any:
    """Return the transformers model, float32, with every stored weight."""
    built = build_model(model.source.config)
    state = {name: model.source.read(name).float() for name in model.graph.tensors}
    built.load_state_dict(state, strict=False, assign=True)
    built.tie_weights()
    return built.eval()
