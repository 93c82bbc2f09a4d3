from __future__ import annotations

import numpy as np
import torch
from tests.problems import make_stats, make_view
from torch import Tensor

from secateur.criteria.units.slimllm import slimllm
from secateur.tensors.unit_view import UnitView


def inputs_of(width: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(80, 1, generator=generator)
    return shared * torch.linspace(-2, 3, width) + torch.randn(80, width, generator=generator) + 4


def correlation(inputs: Tensor, weight: Tensor, kept: list[int], block: int) -> float:
    """Sum over output channels of |Pearson| of the kept units' output and the whole, from activations."""
    columns = [unit * block + place for unit in kept for place in range(block)]
    whole, partly = (inputs @ weight.T).double(), (inputs[:, columns] @ weight[:, columns].T).double()
    return float(sum(abs(np.corrcoef(partly[:, c], whole[:, c])[0, 1]) for c in range(whole.shape[1])))


def test_heads_equal_the_formula_on_the_activations() -> None:
    view, inputs = make_view("kv"), inputs_of(24)
    weight = view.weights["o"]
    scores = slimllm(UnitView(view.group, view.weights, {"o": make_stats(inputs)}))
    expected = [
        8 - correlation(inputs, weight, [other for other in range(3) if other != unit], 8)
        for unit in range(3)
    ]
    torch.testing.assert_close(scores.tolist(), expected, rtol=1e-3, atol=1e-4)


def test_neurons_equal_the_formula_on_the_activations() -> None:
    view, above, inner = make_view("ffn"), inputs_of(8, 2), inputs_of(12, 3)
    first = make_stats(above)
    scores = slimllm(
        UnitView(view.group, view.weights, {"gate": first, "up": first, "down": make_stats(inner)})
    )
    gate, up, down = (view.weights[name].double() for name in ("gate", "up", "down"))
    output = inner.double() @ down.T
    values, vectors = np.linalg.eig(np.cov(output.numpy().T, bias=True))
    power = 1 / (1 + np.exp(-values / values.mean()))
    size, tokens = above.double().norm(dim=0), len(inner)
    expected = []
    for i in range(12):
        projected = np.abs(down[:, i].numpy() @ vectors) * power * float(inner[:, i].double().norm())
        expected.append(
            float((gate[i] * size).norm() + (up[i] * size).norm()) + float(np.linalg.norm(projected))
        )
    # norms over tokens are root mean squares here, the same factor everywhere
    torch.testing.assert_close(
        scores.double() * tokens**0.5, torch.tensor(expected, dtype=torch.float64), rtol=1e-4, atol=0
    )
