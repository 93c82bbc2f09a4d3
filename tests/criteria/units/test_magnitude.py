from __future__ import annotations

import torch
from tests.problems import make_view

from secateur.criteria.units.magnitude import magnitude


def test_equals_the_formula() -> None:
    view = make_view("kv")
    w = {name: tensor.double() for name, tensor in view.weights.items()}
    for unit, score in enumerate(magnitude(view).tolist()):
        q, kv = slice(unit * 8, unit * 8 + 8), slice(unit * 4, unit * 4 + 4)
        owned = [w["q"][q], w["q.bias"][q], w["k"][kv], w["v"][kv], w["o"][:, q]]
        expected = torch.cat([part.flatten() for part in owned]).norm()
        torch.testing.assert_close(score, float(expected), rtol=1e-6, atol=0)


def test_fused_parts_count_once_each() -> None:
    view = make_view("fused ffn")
    fused, down = view.weights["gate_up"], view.weights["down"]
    expected = torch.cat([fused[:12], fused[12:], down.T], dim=1).norm(dim=1)
    torch.testing.assert_close(magnitude(view), expected)
