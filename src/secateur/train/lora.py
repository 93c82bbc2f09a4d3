"""Low-rank adapters that keep zeros: what they add to a weight is masked in training and when merged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from secateur.train.learner import Learner
from secateur_runtime.errors import MissingExtraError, UsageError

_NAME = "default"


def adapters(
    model: Any, modules: Sequence[str], masks: Mapping[str, Tensor], *, rank: int, alpha: int, seed: int
) -> Learner:
    """Return a learner of adapters of `rank` on `modules` (names of linears) of a transformers model.

    masks: weight name -> which of its elements may differ from zero; others get plain LoRA
    (arXiv:2106.09685). With a mask M a linear computes W + M * (B A) alpha / rank, and so does what is
    merged, as in PERP (arXiv:2312.15230). Raises MissingExtraError without peft, UsageError for a rank that
    no weight has.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise MissingExtraError("--method lora needs peft: pip install 'secateur[recover]'") from None
    most = max(min(model.get_submodule(name).weight.shape) for name in modules)
    if rank > most:
        raise UsageError(
            f"--rank {rank} is above {most}, the rank of the largest weight: adapters pay where it is far"
            " below"
        )
    torch.manual_seed(seed)
    model.requires_grad_(False)
    inject_adapter_in_model(
        LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=0.0, bias="none", target_modules=list(modules)),
        model,
    )
    layers = {f"{name}.weight": model.get_submodule(name) for name in modules}
    for name, mask in masks.items():
        if name in layers:
            layers[name].register_buffer("keep", mask, persistent=False)
            layers[name].forward = partial(_masked, layers[name])
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    return Learner(model, parameters, partial(_merged, layers))


def _masked(layer: Any, inputs: Tensor) -> Tensor:
    return linear(
        inputs, layer.base_layer.weight + layer.get_delta_weight(_NAME) * layer.keep, layer.base_layer.bias
    )


@torch.no_grad()
def _merged(layers: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the weights with their adapters merged; zeros outside a mask stay zero."""
    found = {}
    for name, layer in layers.items():
        added = layer.get_delta_weight(_NAME)
        found[name] = layer.base_layer.weight + (added * layer.keep if hasattr(layer, "keep") else added)
    return found
