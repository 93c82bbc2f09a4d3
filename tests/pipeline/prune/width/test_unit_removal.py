"""Removing units in memory: their inputs become zero, and the rest is refitted by least squares."""

from __future__ import annotations

import torch
from tests.conftest import Maker
from torch import Tensor

from secateur.calibrate.input_statistics import HiddenStates
from secateur.model.handle import ModelHandle, open_model
from secateur.pipeline.prune.width.unit_removal import carve, inputs_kept
from secateur.tensors.layer_stream import LiveBlock, alone
from secateur.transform.unit_repair import UNIT_REPAIRS

NAME = "model.layers.1.mlp.down_proj.weight"
KEEP = {"1.ffn": tuple(range(0, 96, 3)), "1.kv": (1,)}
TOKENS = torch.randint(200, (4, 32), generator=torch.Generator().manual_seed(3))


def _cut(model: ModelHandle, repair: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return the last FFN weight before and after its units leave, and its inputs, `[tokens, 96]`."""
    stream = model.stream()
    hidden = HiddenStates(stream, TOKENS)
    with stream.open(1) as live:
        before = live.weight(NAME).clone()
        inputs: list[Tensor] = []
        with alone(live, "ffn"):
            live.tap((NAME,), next(hidden.batches()), lambda _name, given: inputs.append(given))
            carve(live, hidden, live.block.halves["ffn"], KEEP, UNIT_REPAIRS[repair], 0)
        return before, live.weight(NAME).clone(), inputs[0].flatten(0, 1)


def test_without_a_repair_only_the_removed_inputs_change(tiny: Maker) -> None:
    before, after, _ = _cut(open_model(str(tiny("llama"))), "none")
    kept = torch.zeros(96, dtype=torch.bool)
    kept[list(KEEP["1.ffn"])] = True
    assert torch.equal(after[:, kept], before[:, kept])
    assert not after[:, ~kept].any()


def test_least_squares_brings_the_outputs_nearest(tiny: Maker) -> None:
    model = open_model(str(tiny("llama")))
    before, plain, inputs = _cut(model, "none")
    _, after, _ = _cut(model, "lsq")
    kept = list(KEEP["1.ffn"])
    assert set(after.abs().sum(0).nonzero().flatten().tolist()) == set(kept)
    meant = inputs.double() @ before.double().T
    best = torch.linalg.lstsq(inputs.double()[:, kept], meant).solution

    def error(weight: Tensor) -> float:
        return float((inputs.double() @ weight.double().T - meant).square().sum())

    least = float((inputs.double()[:, kept] @ best - meant).square().sum())
    assert least * 0.999 <= error(after) < 1.05 * least + 1e-9 * error(plain)
    assert error(after) < 0.9 * error(plain)


def test_linears_that_lose_inputs_are_named_with_those_that_stay(tiny: Maker) -> None:
    stream = open_model(str(tiny("llama"))).stream()

    def found(live: LiveBlock) -> dict[str, list[int]]:
        return {name: kept.tolist() for name, kept in inputs_kept(live, KEEP).items()}

    with stream.open(1) as live:
        kept = found(live)
    assert kept[NAME] == list(KEEP["1.ffn"])
    # A KV group serves two heads of 16 channels.
    assert kept["model.layers.1.self_attn.o_proj.weight"] == list(range(32, 64))
    with stream.open(0) as live:
        assert found(live) == {}
