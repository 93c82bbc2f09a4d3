"""The independent reference of surgery.

The whole transformers model with the plan's units silenced by hooks.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from secateur.core.plan import Plan

TOKENS = torch.randint(200, (2, 40), generator=torch.Generator().manual_seed(11))


def _scaled(mask: Tensor) -> Callable[[nn.Module, object, Tensor], Tensor]:
    return lambda _module, _inputs, output: output * mask


def _only(mask: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor]]:
    return lambda _module, inputs: (inputs[0] * mask,)


def _mask(size: int, kept: tuple[int, ...], block: int = 1) -> Tensor:
    mask = torch.zeros(size, block)
    mask[list(kept)] = 1
    return mask.flatten()


def masked_model(folder: Path, plan: Plan) -> nn.Module:
    """Return the whole model whose removed heads, neurons, halves and channels give nothing.

    Its norms have their full width.
    """
    whole: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    for name, kept in plan.keep.items():
        if name == "hidden":
            mask = _mask(whole.config.hidden_size, kept)
            whole.get_input_embeddings().register_forward_hook(_scaled(mask))
            for layer in whole.model.layers:
                layer.self_attn.o_proj.register_forward_hook(_scaled(mask))
                layer.mlp.down_proj.register_forward_hook(_scaled(mask))
            continue
        index, kind = name.split(".")
        layer = whole.model.layers[int(index)]
        linear = layer.mlp.down_proj if kind == "ffn" else layer.self_attn.o_proj
        config = whole.config
        size = {
            "ffn": config.intermediate_size,
            "kv": config.num_key_value_heads,
            "head": config.num_attention_heads,
        }[kind]
        linear.register_forward_pre_hook(_only(_mask(size, kept, linear.in_features // size)))
    for name in plan.drop:
        index, _, part = name.partition(".")
        layer = whole.model.layers[int(index)]
        for half in [part] if part else ["attn", "ffn"]:
            linear = layer.self_attn.o_proj if half == "attn" else layer.mlp.down_proj
            linear.register_forward_hook(_scaled(torch.zeros(())))
    assert isinstance(whole, nn.Module)
    return whole


def logits(model: nn.Module) -> Tensor:
    """Return the logits for `TOKENS`."""
    with torch.no_grad():
        found: Tensor = model(TOKENS, use_cache=False).logits
    return found
