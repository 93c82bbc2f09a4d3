"""Build transformers' own model from a config dict, whatever its widths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from secateur.model.families import BASE_KEY, SHAPES_KEY, family_of
from secateur.model.reshape import reshape_blocks


def transformers_config(config: Mapping[str, Any]) -> Any:
    """Return `config` as an object of its family's own class.

    Some of these classes require, when they are made, a `hidden_size` that is the width of all query heads
    together or a multiple of their number. No model needs that, so they are made with such a size and then
    get the real one.
    """
    from transformers import AutoConfig

    stock = {
        key: value for key, value in config.items() if key not in ("per_layer_config", "auto_map", BASE_KEY)
    }
    stock["model_type"] = family_of(config).name
    heads = stock["num_attention_heads"]
    stock["head_dim"] = stock.get("head_dim") or stock["hidden_size"] // heads
    built = AutoConfig.for_model(**{**stock, "hidden_size": heads * stock["head_dim"]})
    built.hidden_size = config["hidden_size"]
    return built


def build_model(config: Mapping[str, Any]) -> Any:
    """Return the model that `config` describes, float32, with transformers' initial weights."""
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_config(transformers_config(config), dtype=torch.float32)
    if SHAPES_KEY in config:
        family = family_of(config)
        reshape_blocks(model, config[SHAPES_KEY], {"attn": family.attn_norms, "ffn": family.ffn_norms})
    return model


def build_without_weights(config: dict[str, Any]) -> Any:
    """Build the model on the meta device, its position tables (which are not weights) on the CPU."""
    with torch.device("meta"):
        # A padding id matters to gradients only, and would have to be a row of an embedding of which some
        # rows are held.
        model = build_model({**config, "pad_token_id": None})
    for module in model.modules():
        own = [name for name, buffer in module.named_buffers(recurse=False) if buffer.is_meta]
        for name in own:
            setattr(module, name, torch.empty_like(getattr(module, name), device="cpu"))
        if own:
            model._init_weights(module)
    return model.eval()
