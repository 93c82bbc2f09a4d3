"""What learns, and the loss compared with a teacher, against plain formulas in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.conftest import Maker
from transformers import AutoModelForCausalLM

from secateur.train.learner import Beside, Loss, apply_masks, named_weights, size
from secateur.train.losses import Targets, likeliest

NAMES = ("model.layers.0.mlp.up_proj.weight", "model.layers.2.self_attn.o_proj.weight")


@pytest.fixture
def model(tiny: Maker) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny("llama"), dtype=torch.float32)


def test_only_named_weights_learn(model: Any) -> None:
    learner = named_weights(model, {}, NAMES)
    assert set(learner.parameters) == set(NAMES)
    assert {name for name, one in model.named_parameters() if one.requires_grad} == set(NAMES)
    for name, tensor in learner.tensors().items():
        assert torch.equal(tensor, model.get_parameter(name))
        assert not tensor.requires_grad


def test_masks_stop_the_gradient_of_zeros_and_of_nothing_else(model: Any) -> None:
    shape = model.get_parameter(NAMES[0]).shape
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(0)) > 0.5
    learner = named_weights(model, {NAMES[0]: mask}, NAMES)
    apply_masks(learner)
    tokens = torch.arange(12)[None]
    model(tokens, labels=tokens).loss.backward()
    first, second = (learner.parameters[name].grad for name in NAMES)
    assert first is not None
    assert second is not None
    before = {NAMES[0]: first.clone(), NAMES[1]: second.clone()}
    apply_masks(learner)
    assert torch.equal(first, before[NAMES[0]] * mask)
    assert bool(before[NAMES[0]][~mask].any())
    assert torch.equal(second, before[NAMES[1]])


def test_size_is_the_root_mean_square_of_what_is_not_zero() -> None:
    assert size(torch.tensor([[3.0, 0, 0], [0, 4, 0]])) == pytest.approx((25 / 2) ** 0.5)
    assert size(torch.zeros(2, 2)) == 0


@pytest.mark.parametrize(
    "loss",
    [
        Loss(),
        Loss(kind="reverse", temperature=2.0),
        Loss(states=0.3),
        Loss(text=0.7),
        Loss(states=0.3, text=0.7),
    ],
    ids=str,
)
def test_the_loss_is_the_weighted_sum_of_its_parts(model: Any, loss: Loss) -> None:
    draw = torch.Generator().manual_seed(1)
    vocabulary = model.config.vocab_size
    tokens = torch.randint(vocabulary, (2, 9), generator=draw)
    teacher = torch.randn(2, 9, vocabulary, generator=draw)
    states = torch.randn(2, 9, 64, generator=draw)
    targets = Targets(*likeliest(teacher, vocabulary, loss.temperature), states)
    with torch.no_grad():
        found = float(Beside(model, loss)(tokens, targets))
        output = model(tokens, output_hidden_states=True)
    p = (teacher.double() / loss.temperature).log_softmax(-1)
    q = (output.logits.double() / loss.temperature).log_softmax(-1)
    divergence = (p.exp() * (p - q) if loss.kind == "forward" else q.exp() * (q - p)).sum(-1).mean()
    distance = (output.hidden_states[-1].double() - states).square().sum(-1) / states.double().square().sum(
        -1
    )
    text = -output.logits.double()[:, :-1].log_softmax(-1).gather(-1, tokens[:, 1:, None]).mean()
    expected = divergence * loss.temperature**2 + loss.states * distance.mean() + loss.text * text
    assert found == pytest.approx(float(expected), rel=2e-3)
