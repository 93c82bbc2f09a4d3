"""A model in training: which of its weights learn, and its loss compared with its teacher."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from secateur.train.losses import Kind, Targets, divergence, next_token, state_distance


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What is minimised.

    kind, temperature: of the divergence from the teacher.
    states: weight of the distance of the last hidden states.
    text: weight of the negative log likelihood of the text itself.
    """

    kind: Kind = "forward"
    temperature: float = 1.0
    states: float = 0.0
    text: float = 0.0


@dataclass(slots=True)
class Learner:
    """The trained parameters of a model, and how they become stored weights.

    parameters: those that learn, by a name of their own.
    tensors: returns what changed, by the names that the model is stored under.
    masks: which of a parameter's elements may differ from zero.
    sizes: what a learning rate is a share of, for each parameter; 1 for those that are not in it.
    """

    model: Any
    parameters: dict[str, nn.Parameter]
    tensors: Callable[[], dict[str, Tensor]]
    masks: dict[str, Tensor] = field(default_factory=dict)
    sizes: dict[str, float] = field(default_factory=dict)


def named_weights(model: Any, masks: Mapping[str, Tensor], names: Collection[str]) -> Learner:
    """Return a learner of the weights `names` of `model`; zeros outside `masks` stay zero."""
    model.requires_grad_(False)
    parameters = {
        name: parameter.requires_grad_() for name, parameter in model.named_parameters() if name in names
    }
    return Learner(
        model,
        parameters,
        lambda: {name: parameter.detach() for name, parameter in parameters.items()},
        dict(masks),
    )


def size(weight: Tensor) -> float:
    """Return the root mean square of a weight's elements that are not zero; 0 if all are."""
    alive = weight[weight != 0]
    return float(alive.square().mean().sqrt()) if len(alive) else 0.0


class Beside(nn.Module):
    """A student model whose output is its loss compared with the teacher's targets."""

    def __init__(self, model: Any, loss: Loss) -> None:
        super().__init__()
        self.model = model
        self._loss = loss

    def forward(self, tokens: Tensor, targets: Targets) -> Tensor:
        """Return the loss of windows `[windows, length]` of token ids."""
        wanted = self._loss
        output = self.model(input_ids=tokens, use_cache=False, output_hidden_states=bool(wanted.states))
        total = divergence(output.logits, targets.tokens, targets.logs, wanted.kind, wanted.temperature)
        if wanted.states and targets.states is not None:
            total = total + wanted.states * state_distance(output.hidden_states[-1], targets.states)
        return total + wanted.text * next_token(output.logits, tokens) if wanted.text else total


@torch.no_grad()
def apply_masks(learner: Learner) -> None:
    """Set gradients to zero where a weight must stay zero."""
    for name, mask in learner.masks.items():
        gradient = learner.parameters[name].grad
        if gradient is not None:
            gradient.mul_(mask)
