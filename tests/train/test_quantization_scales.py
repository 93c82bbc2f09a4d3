"""New scales compute what the gains computed, in the types of the file; gradients are autograd's."""

from __future__ import annotations

import pytest
import torch
from tests.conftest import Maker
from transformers import AutoModelForCausalLM

from secateur.quantizers.fit import fit, round_to
from secateur.train.quantization_scales import scales
from secateur_runtime.kernels.quantized import Codes, Grid


def _codes(weight: torch.Tensor, grid: Grid) -> Codes:
    groups = weight.view(len(weight), -1, grid.group)
    steps, zeros = fit(groups, torch.ones_like(groups), grid)
    return Codes(grid, round_to(groups, steps, zeros, grid).view(weight.shape).to(torch.int8), steps, zeros)


def _levels(codes: Codes) -> torch.Tensor:
    levels = codes.values.double().view(*codes.scales.shape, codes.grid.group)
    return levels if codes.zeros is None else levels - codes.zeros.double()[..., None]


@pytest.mark.parametrize("name", ["int4-g16", "int4a-g16", "int8-g8", "int8a-g16"])
def test_scales_found_mean_what_was_trained_and_gradients_are_right(tiny: Maker, name: str) -> None:
    grid, draw = Grid.parse(name), torch.Generator().manual_seed(0)
    model, plain = (
        AutoModelForCausalLM.from_pretrained(tiny("llama"), dtype=torch.float32) for _ in range(2)
    )
    names = ["model.layers.0.self_attn.q_proj.weight", "model.layers.1.mlp.down_proj.weight"]
    codes = {one: _codes(plain.get_parameter(one).detach(), grid) for one in names}
    tokens = torch.randint(200, (2, 16), generator=draw)
    learner = scales(model, codes)
    with torch.no_grad():
        for gain in learner.parameters.values():
            gain.mul_(1 + 0.1 * torch.randn(gain.shape, generator=draw))
    model(tokens, labels=tokens).loss.backward()
    found, levels = learner.tensors(), {one: _levels(codes[one]) for one in names}
    assert found.keys() == set(names)
    with torch.no_grad():
        for one in names:
            wanted = codes[one].scales.float() * learner.parameters[one]
            assert found[one].dtype == torch.float16
            torch.testing.assert_close(
                found[one].float(),
                wanted,
                rtol=2**-11 if grid.symmetric else 2.0 ** (grid.bits - 11),
                atol=1e-7,
            )
            plain.get_parameter(one).copy_((levels[one] * wanted.double()[..., None]).flatten(1))
    after = plain(tokens, labels=tokens)
    after.loss.backward()
    torch.testing.assert_close(model(tokens).logits, after.logits)
    for one in names:
        slope = plain.get_parameter(one).grad
        assert slope is not None
        wanted = (slope.double().view(levels[one].shape) * levels[one]).sum(-1) * codes[one].scales.double()
        torch.testing.assert_close(learner.parameters[one].grad, wanted.float(), rtol=1e-3, atol=1e-6)
    assert [one for one, parameter in model.named_parameters() if parameter.requires_grad] == [
        one.replace("weight", "gain") for one in names
    ]
