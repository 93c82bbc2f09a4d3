"""Local reconstruction of one block.

What least squares would find, masks kept, and changes that do not help undone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from secateur.train.block_reconstruction import Aim, Course, Fit, reconstruct
from secateur_runtime.errors import UsageError

COURSE = Course(steps=300, batch=4, rate=0.1, held=4)


class Lines:
    """A block that is one matrix."""

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight
        self.seen: list[int] = []

    def __call__(self, hidden: Tensor) -> Tensor:
        return hidden @ self._weight.T

    def slope(
        self, hidden: Tensor, loss: Callable[[Tensor], Tensor], tensors: tuple[str, ...]
    ) -> tuple[float, dict[str, Tensor]]:
        self.seen.append(len(hidden))
        weight = self._weight.clone().requires_grad_()
        value = loss(hidden @ weight.T)
        (found,) = torch.autograd.grad(value, weight)
        return float(value.detach()), {"w": found}

    def weight(self, tensor: str) -> Tensor:
        return self._weight


def _problem() -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randn(20, 8, 6, generator=draw)
    right = torch.randn(5, 6, generator=draw)
    return inputs, inputs @ right.T, right


def _fit(
    block: Any,
    mask: Tensor | None,
    inputs: Tensor,
    targets: Tensor,
    dtype: torch.dtype = torch.float32,
    metric: Tensor | None = None,
    course: Course = COURSE,
) -> Fit:
    return reconstruct(block, {"w": mask}, inputs, Aim(targets, metric), course, dtype, 0)


def test_finds_the_matrix_that_made_the_targets() -> None:
    inputs, targets, right = _problem()
    block = Lines(torch.ones(5, 6))
    fit = _fit(block, None, inputs, targets)
    assert fit.kept
    assert fit.after < 1e-3 < fit.before
    torch.testing.assert_close(block.weight("w"), right, atol=0.05, rtol=0.05)
    assert block.seen == [4] * 300


def test_masked_weights_stay_zero_and_the_others_do_what_weighted_least_squares_does() -> None:
    inputs, targets, _ = _problem()
    mask = torch.rand(5, 6, generator=torch.Generator().manual_seed(1)) > 0.5
    block = Lines(torch.ones(5, 6) * mask)
    _fit(block, mask, inputs, targets)
    found = block.weight("w")
    assert torch.equal(found != 0, mask)
    x, y = inputs[:16].flatten(0, 1), targets[:16].flatten(0, 1)
    scale = y.norm(dim=-1, keepdim=True)
    for row in range(5):
        best = torch.linalg.lstsq((x / scale)[:, mask[row]], (y / scale)[:, row]).solution
        torch.testing.assert_close(found[row, mask[row]], best, atol=0.1, rtol=0.1)


def test_with_a_metric_masked_weights_do_what_least_squares_does_that_weighs_directions_by_it() -> None:
    """Masked rows cannot all be right.

    With correlated directions, one row's error is compensated by weights of another.
    """
    inputs, targets, _ = _problem()
    mask = torch.rand(5, 6, generator=torch.Generator().manual_seed(1)) > 0.5
    metric = torch.linalg.cholesky(torch.eye(5) + 3 * torch.ones(5, 5))
    block, plain = Lines(torch.ones(5, 6) * mask), Lines(torch.ones(5, 6) * mask)
    course = Course(steps=600, batch=16, rate=0.1, held=4)
    _fit(block, mask, inputs, targets, metric=metric, course=course)
    _fit(plain, mask, inputs, targets, course=course)
    x, y = inputs[:16].flatten(0, 1), targets[:16].flatten(0, 1)
    scale = y.norm(dim=-1, keepdim=True)
    # every free weight is one unknown of what it adds to the multiplied error
    columns = torch.stack(
        [
            torch.outer((x / scale)[:, column], metric[row]).flatten()
            for row, column in mask.nonzero().tolist()
        ],
        1,
    )
    best = torch.linalg.lstsq(columns, ((y / scale) @ metric).flatten()).solution
    torch.testing.assert_close(block.weight("w")[mask], best, atol=0.05, rtol=0.05)
    assert (plain.weight("w")[mask] - best).abs().max() > 0.2


def test_what_does_not_help_on_held_out_windows_is_undone() -> None:
    inputs, targets, right = _problem()
    targets[:16] = inputs[:16] @ torch.randn(6, 5)
    block = Lines(right.clone())
    assert not _fit(block, None, inputs, targets).kept
    assert torch.equal(block.weight("w"), right)


def test_steps_that_were_too_large_are_tried_again_smaller_from_the_same_start() -> None:
    inputs, targets, _ = _problem()
    wild, small = Lines(torch.ones(5, 6)), Lines(torch.ones(5, 6))
    fit = _fit(wild, None, inputs, targets, course=Course(steps=6, batch=4, rate=8.0, held=4, warmup=1))
    _fit(small, None, inputs, targets, course=Course(steps=6, batch=4, rate=2.0, held=4, warmup=1))
    assert fit.kept
    assert len(wild.seen) == 12
    assert torch.equal(wild.weight("w"), small.weight("w"))


def test_a_loss_that_is_not_a_number_ends_the_training_and_changes_nothing() -> None:
    inputs, targets, right = _problem()
    inputs[3] = float("inf")
    block = Lines(right * 1.5)
    fit = _fit(block, None, inputs, targets)
    assert len(block.seen) < 20
    assert torch.isfinite(block.weight("w")).all()
    assert fit.kept or torch.equal(block.weight("w"), right * 1.5)


def test_weights_come_out_in_the_type_they_are_stored_in() -> None:
    inputs, targets, _ = _problem()
    block = Lines(torch.ones(5, 6))
    assert _fit(block, None, inputs, targets, torch.bfloat16).kept
    assert torch.equal(block.weight("w"), block.weight("w").bfloat16().float())


@pytest.mark.parametrize("windows", [5, 7])
def test_every_window_is_seen_once_before_any_is_seen_again(windows: int) -> None:
    from secateur.train.block_reconstruction import _batches

    seen = torch.cat(list(_batches(windows, Course(steps=windows, batch=3, rate=1.0), 0)))
    assert torch.bincount(seen).tolist() == [3] * windows


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        (3, "4 windows of 8 tokens at once: --batch 16 fits"),
        (0, "one window of 8 tokens: pass a smaller --calib-window"),
    ],
)
def test_out_of_memory_names_what_fits(limit: int, message: str) -> None:
    class Crowded(Lines):
        def slope(
            self, hidden: Tensor, loss: Callable[[Tensor], Tensor], tensors: tuple[str, ...]
        ) -> tuple[float, dict[str, Tensor]]:
            if len(hidden) > limit:
                raise RuntimeError(
                    "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate"
                    " 9999999999 bytes"
                )
            return super().slope(hidden, loss, tensors)

    inputs, targets, right = _problem()
    with pytest.raises(UsageError, match=message):
        _fit(Crowded(right.clone()), None, inputs, targets)


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    class Broken(Lines):
        def slope(
            self, hidden: Tensor, loss: Callable[[Tensor], Tensor], tensors: tuple[str, ...]
        ) -> tuple[float, dict[str, Tensor]]:
            raise RuntimeError("shapes do not match")

    inputs, targets, right = _problem()
    with pytest.raises(RuntimeError, match="shapes do not match"):
        _fit(Broken(right.clone()), None, inputs, targets)
