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


def test_a_rank_that_no_weight_has_is_refused(tiny: Maker) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny("llama"), dtype=torch.float32)
    adapters(model, ["model.layers.0.mlp.down_proj"], {}, rank=64, alpha=8, seed=0)
    with pytest.raises(UsageError, match="--rank 65 is above 64"):
        adapters(model, ["model.layers.0.mlp.down_proj"], {}, rank=65, alpha=8, seed=0)
