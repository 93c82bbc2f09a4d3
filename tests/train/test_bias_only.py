"""Only biases learn, and a family without biases is refused."""

from __future__ import annotations

import pytest
import torch
from tests.conftest import Maker
from transformers import AutoModelForCausalLM

from secateur.model.handle import open_model
from secateur.train.bias_only import biases
from secateur_runtime.errors import UsageError


def test_every_bias_learns_and_nothing_else(tiny: Maker) -> None:
    folder = tiny("qwen2")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    learner = biases(model, open_model(str(folder)).graph.tensors)
    expected = {name for name, _ in model.named_parameters() if name.endswith(".bias")}
    assert len(expected) == 3 * 3
    assert set(learner.parameters) == set(learner.tensors()) == expected
    tokens = torch.arange(20)[None]
    model(tokens, labels=tokens).loss.backward()
    learning = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert learning == expected


def test_names_that_are_not_given_do_not_learn(tiny: Maker) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny("qwen2"), dtype=torch.float32)
    name = "model.layers.1.self_attn.v_proj.bias"
    assert list(biases(model, [name, "model.norm.weight"]).parameters) == [name]


def test_a_family_without_biases_is_refused(tiny: Maker) -> None:
    folder = tiny("llama")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with pytest.raises(UsageError, match="holds no biases: use --method lora or distill"):
        biases(model, open_model(str(folder)).graph.tensors)
