"""Train the scales of quantized weights: codes and zeros are fixed, so the file does not grow."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from secateur.train.learner import Learner
from secateur_runtime.kernels.quantized import Codes, exact_scales


def scales(model: Any, codes: Mapping[str, Codes]) -> Learner:
    """Return a learner of the scales of a transformers model, each as a factor of its present value.

    codes: weight name -> its codes; the model's own weights of these names are freed. The learner's tensors
    are new scales by weight name. Everything else is frozen, as in the second phase of EfficientQAT
    (arXiv:2407.11062).
    """
    model.requires_grad_(False)
    layers = {name: model.get_submodule(name.removesuffix(".weight")) for name in codes}
    for name, layer in layers.items():
        _put(layer, codes[name])
    return Learner(
        model, {name: layer.gain for name, layer in layers.items()}, partial(_found, layers, codes)
    )


def _put(layer: Any, codes: Codes) -> None:
    levels = codes.values.view(*codes.scales.shape, codes.grid.group)
    if codes.zeros is not None:
        # The difference of two codes of 8 bits does not fit 8 bits.
        levels = levels.to(torch.int16) - codes.zeros[..., None]
    layer.weight = nn.Parameter(torch.empty(0), requires_grad=False)
    layer.gain = nn.Parameter(torch.ones(codes.scales.shape))
    layer.register_buffer("levels", levels, persistent=False)
    layer.register_buffer("steps", codes.scales.float(), persistent=False)
    layer.forward = partial(_forward, layer)


def _forward(layer: Any, inputs: Tensor) -> Tensor:
    weight: Tensor = _Scaled.apply(layer.gain, layer.levels, layer.steps)  # type: ignore[no-untyped-call]
    return linear(inputs, weight, layer.bias)


@torch.no_grad()
def _found(layers: Mapping[str, Any], codes: Mapping[str, Codes]) -> dict[str, Tensor]:
    found = {}
    for name, layer in layers.items():
        grid = codes[name].grid
        wanted = layer.steps * layer.gain
        found[name] = (wanted if grid.symmetric else exact_scales(wanted, grid.bits)).half()
    return found


class _Scaled(torch.autograd.Function):
    """The weight `[out_features, in_features]` from gains, steps and levels.

    Gains and steps are `[out_features, groups]`, levels `[out_features, groups, group]`. Only the levels, a
    byte or two each, are saved for the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, gain: Tensor, levels: Tensor, steps: Tensor) -> Tensor:
        """Return the weight."""
        ctx.save_for_backward(levels, steps)
        return (levels * (steps * gain)[..., None]).flatten(1)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient of the gains."""
        levels, steps = ctx.saved_tensors
        return (slope.view(levels.shape) * levels).sum(-1) * steps, None, None
