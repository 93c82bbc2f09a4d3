"""Measured errors: what changes nothing loses most, and measuring leaves no trace."""

from __future__ import annotations

import pytest
import torch
from tests.allocate.problems import allocated
from tests.conftest import Maker

from secateur.allocate.error import Error
from secateur.calibrate.input_statistics import HiddenStates, collect
from secateur.criteria.wanda import wanda
from secateur.model.handle import open_model
from secateur.tensors.layer_stream import LiveBlock


def mute(block: LiveBlock) -> None:
    """Silence the attention of the second block: pruning it changes nothing."""
    if block.block.index == 1:
        block.weight("model.layers.1.self_attn.o_proj.weight").zero_()


def test_a_sub_block_that_changes_nothing_loses_most(tiny: Maker) -> None:
    name = "model.layers.1.self_attn.q_proj.weight"
    before, _ = allocated(tiny("llama"), Error, 0.5)
    ratios, _ = allocated(tiny("llama"), Error, 0.5, mute)
    assert ratios[name] == max(ratios.values())
    assert ratios[name] == pytest.approx(0.65, abs=0.01)
    assert before[name] < 0.6


def test_one_budget_for_each_sub_block(tiny: Maker) -> None:
    ratios, _ = allocated(tiny("llama"), Error, 0.5)
    for index in range(3):
        for part in ("self_attn", "mlp"):
            assert len({ratio for name, ratio in ratios.items() if f".{index}.{part}." in name}) == 1
    assert len(set(ratios.values())) > 1


def test_ratios_are_the_least_sum_of_errors_among_all_on_a_fine_grid(tiny: Maker) -> None:
    """One block: its two ratios share one budget, so a search over one number finds the best."""
    folder = tiny("llama", num_hidden_layers=1)
    ratios, scores = allocated(folder, Error, 0.5)
    parts = {
        part: sum(score.numel() for name, score in scores.items() if part in name)
        for part in ("self_attn", "mlp")
    }
    stream = open_model(str(folder)).stream()
    hidden = HiddenStates(stream, torch.randint(200, (4, 64), generator=torch.Generator().manual_seed(8)))
    inputs = next(hidden.batches())

    def error(part: str, ratio: float) -> float:
        """Return the relative error once the lowest scores of a sub-block's tensors are zero."""
        with stream.open(0) as block:
            dense = block(inputs).double()
            for name, score in scores.items():
                if part in name:
                    lowest = score.flatten().argsort()[: int(ratio * score.numel())]
                    block.weight(name).view(-1)[lowest] = 0
            change = block(inputs).double() - dense
            return float((change.square().sum(-1) / dense.square().sum(-1)).mean())

    def total(attention: float) -> float:
        ffn = (0.5 * sum(parts.values()) - attention * parts["self_attn"]) / parts["mlp"]
        return error("self_attn", attention) + error("mlp", ffn)

    found = next(ratio for name, ratio in ratios.items() if "self_attn" in name)
    # errors between three measured ratios are interpolated, so the found one is near the best, not it
    assert total(found) <= 1.02 * min(total(0.35 + 0.01 * step) for step in range(31) if step != 15)
    assert abs(found - 0.5) > 0.01


def test_it_restores_the_weights_it_measured_with(tiny: Maker) -> None:
    stream = open_model(str(tiny("llama"))).stream()
    hidden = HiddenStates(stream, torch.zeros(1, 16, dtype=torch.int64))
    with stream.open(0) as block:
        linears = block.block.linears
        before = {linear.tensor: block.weight(linear.tensor).clone() for linear in linears}
        stats = collect(block, linears, hidden, {"input_sq"})
        Error(0.5, wanda).observe(block, linears, stats, next(hidden.batches()))
        for tensor, weight in before.items():
            assert torch.equal(block.weight(tensor), weight)
