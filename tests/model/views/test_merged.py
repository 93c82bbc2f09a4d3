"""A block that takes in others has its weights plus their differences from it."""

from __future__ import annotations

import torch
from tests.conftest import Maker

from secateur.model.handle import ModelHandle, open_model
from secateur.model.views.merged import Merged


def weight(model: ModelHandle, block: int, rest: str) -> torch.Tensor:
    return model.source.read(f"model.layers.{block}.{rest}").double()


def test_each_tensor_is_the_sum_of_the_differences(tiny: Maker) -> None:
    model = open_model(str(tiny("llama", num_hidden_layers=5)))
    merged = Merged(model, {"1": ("2", "4")})
    for rest in ("self_attn.q_proj.weight", "mlp.down_proj.weight", "input_layernorm.weight"):
        own = weight(model, 1, rest)
        expected = own + (weight(model, 2, rest) - own) + (weight(model, 4, rest) - own)
        found = merged.read(f"model.layers.1.{rest}")
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)


def test_all_else_is_as_stored(tiny: Maker) -> None:
    model = open_model(str(tiny("llama", dtype="bfloat16")))
    merged = Merged(model, {"0": ("1",)})
    for name in model.source.tensors:
        found, stored = merged.read(name), model.source.read(name)
        changed = name.startswith("model.layers.0.")
        assert torch.equal(found, stored) is not changed
        assert found.dtype == (torch.float32 if changed else torch.bfloat16)
        assert torch.equal(torch.cat(list(merged.pieces(name))), found)
    assert merged.digest() == model.digest


def test_one_other_block_takes_the_place_of_its_own(tiny: Maker) -> None:
    model = open_model(str(tiny("llama")))
    merged = Merged(model, {"0": ("2",)})
    found = merged.read("model.layers.0.mlp.up_proj.weight")
    torch.testing.assert_close(found, model.source.read("model.layers.2.mlp.up_proj.weight"))
