"""Local reconstruction: train one sub-block until it gives what the dense model's sub-block gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from secateur.tensors.layer_stream import LiveBlock
from secateur.train.learner import size
from secateur.train.out_of_memory import is_memory, what_fits
from secateur.train.schedule import rate
from secateur_runtime.errors import UsageError

_BETAS = (0.9, 0.95)
_TINY = 1e-12
_RATES = (1.0, 0.25)
"""Shares of the rate, tried in turn until one helps: weights fitted by least squares need small steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """How one sub-block is trained.

    steps: of Adam; batch: windows in each.
    rate: highest learning rate, as a share of the root mean square of a tensor's weights that are not zero.
    warmup: steps over which the rate rises.
    held: windows, the last ones, that are not trained on and decide whether a change is kept.
    """

    steps: int
    batch: int
    rate: float
    warmup: int = 5
    held: int = 8


@dataclass(frozen=True, slots=True)
class Fit:
    """Error on the held-out windows before and after.

    Squared distance from the target, relative to the target, mean over tokens.
    """

    before: float
    after: float

    @property
    def kept(self) -> bool:
        """Whether the change was kept; it is not if the error is not a number."""
        return self.after < self.before


@dataclass(frozen=True, slots=True)
class Aim:
    """The target of a sub-block.

    states: `[windows, tokens, hidden_size]`.
    metric: what an error is multiplied by before it is squared, `[hidden_size, hidden_size]`, or None.
    """

    states: Tensor
    metric: Tensor | None = None

    def of(self, windows: Tensor | slice) -> Aim:
        """Return the target of some windows."""
        return Aim(self.states[windows], self.metric)

    def distance(self, output: Tensor) -> Tensor:
        """Return the squared distance of an output, relative to the state's size, mean over tokens."""
        error = output - self.states
        if self.metric is not None:
            error = error @ self.metric
        return (error.square().sum(-1) / self.states.square().sum(-1).clamp_min(_TINY)).mean()


def reconstruct(
    live: LiveBlock,
    masks: Mapping[str, Tensor | None],
    inputs: Tensor,
    aim: Aim,
    course: Course,
    dtype: torch.dtype,
    seed: int,
) -> Fit:
    """Train weights of a block in place towards `aim`, and restore them if that does not help.

    live: runs the sub-block that is trained, and nothing else.
    masks: tensor -> its weights that may change, or None for all.
    inputs: `[windows, tokens, hidden_size]`.
    dtype: the type that trained weights are rounded to.

    One sub-module at a time, as "A Free Lunch in LLM Compression" (arXiv:2510.14444) finds best. Each token
    counts by the inverse square of its target, so that a few massive activations do not dominate.
    """
    held = slice(len(inputs) - course.held, None)
    start = {name: live.weight(name).clone() for name in masks}
    before = _error(live, inputs[held], aim.of(held), course.batch)
    for share in _RATES:
        _train(live, masks, inputs[: held.start], aim, replace(course, rate=course.rate * share), seed)
        for name in masks:
            live.weight(name).copy_(live.weight(name).to(dtype))
        fit = Fit(before, _error(live, inputs[held], aim.of(held), course.batch))
        if fit.kept:
            break
        for name, weight in start.items():
            live.weight(name).copy_(weight)
    return fit


def _train(
    live: LiveBlock, masks: Mapping[str, Tensor | None], inputs: Tensor, aim: Aim, course: Course, seed: int
) -> None:
    # The optimizer's own parameters share their memory with the block's weights.
    weights = {name: torch.nn.Parameter(live.weight(name)) for name in masks}
    groups = [{"params": [weight], "lr": course.rate * size(weight.detach())} for weight in weights.values()]
    optimizer = torch.optim.Adam(groups, betas=_BETAS, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: rate("cosine", step, course.steps, course.warmup)
    )
    for chosen in _batches(len(inputs), course, seed):
        value, slopes = _slope(live, masks, inputs, aim, chosen)
        if not value < float("inf"):
            return
        for name, weight in weights.items():
            mask = masks[name]
            weight.grad = slopes[name] if mask is None else slopes[name].mul_(mask)
        optimizer.step()
        schedule.step()


def _slope(
    live: LiveBlock, masks: Mapping[str, Tensor | None], inputs: Tensor, aim: Aim, chosen: Tensor
) -> tuple[float, dict[str, Tensor]]:
    """Return error and gradients of the windows `chosen`.

    Raises UsageError, naming the batch that fits, if memory does not suffice.
    """

    def of(size: int) -> tuple[float, dict[str, Tensor]]:
        return live.slope(inputs[chosen[:size]], aim.of(chosen[:size]).distance, tuple(masks))

    try:
        return of(len(chosen))
    except RuntimeError as error:
        if not is_memory(error):
            raise
    length = inputs.shape[1]
    if fits := what_fits(len(chosen), of):
        raise UsageError(
            f"out of memory with {len(chosen)} windows of {length} tokens at once: --batch {fits * length}"
            " fits"
        )
    raise UsageError(f"out of memory with one window of {length} tokens: pass a smaller --calib-window")


def _batches(windows: int, course: Course, seed: int) -> Iterator[Tensor]:
    """Yield the windows of each step: every one once before any a second time."""
    draw = torch.Generator().manual_seed(seed)
    order = torch.empty(0, dtype=torch.int64)
    for _ in range(course.steps):
        if len(order) < course.batch:
            order = torch.cat([order, torch.randperm(windows, generator=draw)])
        yield order[: course.batch]
        order = order[course.batch :]


def _error(live: LiveBlock, inputs: Tensor, aim: Aim, step: int) -> float:
    pieces = torch.arange(len(inputs)).split(step)
    return sum(float(aim.of(piece).distance(live(inputs[piece]))) * len(piece) for piece in pieces) / len(
        inputs
    )
