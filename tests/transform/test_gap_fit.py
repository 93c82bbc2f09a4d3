"""The fit behind a gap: the ridge solution of all windows, damped as the held-out ones ask, or nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from secateur.transform.gap_fit import DAMPINGS, SeamFit


def _windows(noise: float) -> tuple[Tensor, Tensor, Tensor]:
    make = torch.Generator().manual_seed(3)
    inputs = torch.randn(8, 40, 6, generator=make)
    missing = inputs @ torch.randn(6, 5, generator=make) * (1 - noise) + noise * torch.randn(
        8, 40, 5, generator=make
    )
    states = 1 + torch.rand(8, 40, 5, generator=make)
    return inputs, missing, states


def _fitted(inputs: Tensor, missing: Tensor, states: Tensor) -> SeamFit:
    fit = SeamFit(5, 6)
    for start in range(0, 8, 3):
        fit.add(inputs[start : start + 3], missing[start : start + 3], states[start : start + 3])
    return fit


@pytest.mark.parametrize("kept", [None, torch.tensor([0, 2, 5])])
def test_it_is_the_ridge_solution_with_the_damping_best_on_held_out_windows(kept: Tensor | None) -> None:
    inputs, missing, states = _windows(0.3)
    found = _fitted(inputs, missing, states).change(kept)
    assert found is not None
    used = torch.arange(6) if kept is None else kept
    weight = states.double().norm(dim=-1, keepdim=True).reciprocal()
    x, y = (inputs.double() * weight)[..., used], missing.double() * weight
    held = torch.tensor([False, False, False, True] * 2)

    def solution(windows: Tensor, damping: float) -> Tensor:
        a, b = x[windows].flatten(0, 1), y[windows].flatten(0, 1)
        extra = torch.diag((damping * a.square().sum(0)).sqrt())
        found: Tensor = torch.linalg.lstsq(
            torch.cat([a, extra]), torch.cat([b, torch.zeros(len(used), 5).double()])
        ).solution
        return found.T

    errors = {
        damping: float((y[held] - x[held] @ solution(~held, damping).T).square().sum())
        for damping in DAMPINGS
    }
    best = min(errors, key=lambda damping: errors[damping])
    torch.testing.assert_close(
        found[:, used].double(), solution(torch.ones(8, dtype=torch.bool), best), rtol=1e-4, atol=1e-5
    )
    assert not found[:, [index for index in range(6) if index not in used]].any()


def test_what_no_input_explains_is_left_alone() -> None:
    inputs, missing, states = _windows(1.0)
    # Fitting windows and held-out ones contradict each other.
    signs = torch.tensor([1.0, 1.0, 1.0, -1.0] * 2)[:, None, None]
    assert _fitted(inputs, signs * (inputs @ torch.ones(6, 5)), states).change() is None
    assert _fitted(torch.zeros_like(inputs), missing, states).change() is None


def test_without_held_out_windows_nothing_is_changed() -> None:
    inputs, missing, states = _windows(0.1)
    fit = SeamFit(5, 6)
    fit.add(inputs[:3], missing[:3], states[:3])
    assert fit.change() is None
