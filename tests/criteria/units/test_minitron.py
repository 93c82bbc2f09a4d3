from __future__ import annotations

import pytest
import torch
from tests.problems import make_stats, make_view

from secateur.criteria.units.minitron import minitron
from secateur.tensors.unit_view import UnitView


def inputs_of(width: int, seed: int) -> torch.Tensor:
    """Two windows of 30 tokens."""
    return torch.randn(60, width, generator=torch.Generator().manual_seed(seed)) * torch.arange(1, width + 1)


def norm_of(inputs: torch.Tensor) -> torch.Tensor:
    windows = inputs.double().view(2, 30, -1)
    return torch.stack([window.abs().sum(0) / 30 for window in windows]).square().sum(0).div(2).sqrt()


def test_equals_the_formula_for_neurons_and_heads() -> None:
    for layout, block in (("ffn", 1), ("kv", 8), ("head", 4)):
        view = make_view(layout)
        name, size = view.group.slices[-1].tensor, view.group.size
        inputs = inputs_of(size * block, 3)
        scores = minitron(UnitView(view.group, view.weights, {name: make_stats(inputs)}))
        torch.testing.assert_close(scores.double(), norm_of(inputs).view(size, block).square().sum(1).sqrt())


def test_hidden_channels_add_up_over_norms_and_each_norm_counts_once() -> None:
    view = make_view("hidden")
    attention, ffn = inputs_of(8, 4), inputs_of(8, 5)
    first, second = make_stats(attention), make_stats(ffn)
    stats = {
        "q": first,
        "k": first,
        "v": first,
        "gate": second,
        "up": second,
        "o": make_stats(inputs_of(24, 6)),
    }
    scores = minitron(UnitView(view.group, view.weights, stats))
    torch.testing.assert_close(scores.double(), norm_of(attention) + norm_of(ffn))


def test_needs_the_sizes() -> None:
    view = make_view("ffn")
    stats = make_stats(inputs_of(12, 1))
    stats.input_abs = None
    with pytest.raises(ValueError, match="input_abs"):
        minitron(UnitView(view.group, view.weights, {"down": stats}))
