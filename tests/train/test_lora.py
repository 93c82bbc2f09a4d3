"""Adapters compute, masked, what their merged weights compute."""

from __future__ import annotations

import pytest
import torch
from tests.conftest import Maker
from transformers import AutoModelForCausalLM

from secateur.train.lora import adapters
from secateur_runtime.errors import UsageError


def test_merged_weights_compute_what_the_adapters_computed_and_keep_zeros(tiny: Maker) -> None:
    folder = tiny("llama")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    names = [
        f"model.layers.{index}.{module}"
        for index in range(3)
        for module in ("self_attn.q_proj", "mlp.down_proj")
    ]
    masked = [f"{name}.weight" for name in names[:3]]
    masks = {
        name: torch.rand(model.get_parameter(name).shape, generator=torch.Generator().manual_seed(1)) > 0.5
        for name in masked
    }
    with torch.no_grad():
        for name, mask in masks.items():
            model.get_parameter(name).mul_(mask)
    tokens = torch.randint(200, (1, 16), generator=torch.Generator().manual_seed(2))
    before = model(tokens).logits
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    learner = adapters(model, names, masks, rank=4, alpha=8, seed=0)
    torch.testing.assert_close(model(tokens).logits, before)
    with torch.no_grad():
        for parameter in learner.parameters.values():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)) * 0.1)
    found = learner.tensors()
    assert found.keys() == {f"{name}.weight" for name in names}
    for name, mask in masks.items():
        assert not found[name][~mask].any()
    with torch.no_grad():
        for name, weight in found.items():
            plain.get_parameter(name).copy_(weight)
    after = model(tokens).logits
    assert not torch.allclose(after, before, atol=1e-2)
    torch.testing.assert_close(plain(tokens).logits, after, rtol=1e-4, atol=1e-4)


def test_merged_weights_are_the_formula_of_masked_adapters(tiny: Maker) -> None:
    """W + M * (B A) alpha / rank in float64."""
    model = AutoModelForCausalLM.from_pretrained(tiny("llama"), dtype=torch.float32)
    name = "model.layers.1.mlp.up_proj"
    draw = torch.Generator().manual_seed(4)
    mask = torch.rand(model.get_parameter(f"{name}.weight").shape, generator=draw) > 0.5
    weight = model.get_parameter(f"{name}.weight").detach().clone()
    learner = adapters(model, [name], {f"{name}.weight": mask}, rank=4, alpha=24, seed=0)
    first, second = (
        next(one for key, one in learner.parameters.items() if part in key) for part in ("lora_A", "lora_B")
    )
    assert first.shape == (4, 64)
    with torch.no_grad():
        for parameter in (first, second):
            parameter.copy_(torch.randn(parameter.shape, generator=draw))
    product = second.detach().double() @ first.detach().double()
    expected = weight.double() + mask * product * 24 / 4
    torch.testing.assert_close(learner.tensors()[f"{name}.weight"].double(), expected, rtol=1e-5, atol=1e-5)


def test_the_seed_decides_where_adapters_start(tiny: Maker) -> None:
    def started(seed: int) -> list[torch.Tensor]:
        model = AutoModelForCausalLM.from_pretrained(tiny("llama"), dtype=torch.float32)
        learner = adapters(model, ["model.layers.0.mlp.up_proj"], {}, rank=2, alpha=4, seed=seed)
        return [parameter.detach() for parameter in learner.parameters.values()]

    one, again, other = started(1), started(1), started(2)
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_rank_that_no_weight_has_is_refused(tiny: Maker) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny("llama"), dtype=torch.float32)
    adapters(model, ["model.layers.0.mlp.down_proj"], {}, rank=64, alpha=8, seed=0)
    with pytest.raises(UsageError, match="--rank 65 is above 64"):
        adapters(model, ["model.layers.0.mlp.down_proj"], {}, rank=65, alpha=8, seed=0)
