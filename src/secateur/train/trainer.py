"""The training loop: reproducible steps, early stopping by held-out loss, and a state to resume from."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from secateur.core.progress import Progress
from secateur.train import training_state
from secateur.train.gradual import Gradual
from secateur.train.learner import Beside, Learner, Loss, apply_masks
from secateur.train.losses import Targets
from secateur.train.out_of_memory import is_memory, what_fits
from secateur.train.schedule import Schedule, rate
from secateur_runtime.errors import UsageError

_BETAS = (0.9, 0.95)
_DIVERGED = 4.0
"""Held-out loss of so many times the best so far ends a run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Regime:
    """How a model is trained.

    steps: of AdamW; batch: windows in a step, over all processes.
    micro: windows that one process runs at once; gradients are accumulated.
    rate: highest learning rate, times the size of a parameter; floor: share of it at the end.
    clip: largest norm of a gradient.
    checks: evaluations of the held-out loss; patience: evaluations in a row without gain that end the run.
    bfloat16: run operations in bfloat16; weights, gradients and sums are float32.
    checkpointing: compute activations again instead of storing them.
    first: steps that earlier runs on the same windows took; this run continues in their order.
    """

    steps: int
    batch: int
    micro: int
    rate: float
    schedule: Schedule = "cosine"
    warmup: int = 10
    floor: float = 0.1
    clip: float = 1.0
    checks: int = 10
    patience: int = 3
    bfloat16: bool = True
    checkpointing: bool = False
    first: int = 0


@dataclass(frozen=True, slots=True)
class Trained:
    """The result of a run.

    start, best: held-out loss before it and at its best; best_step: 0 if nothing was better than the start.
    tokens: trained on by this process since its start or resume.
    seconds: duration of that, without evaluations of the held-out loss.
    """

    start: float
    best: float
    best_step: int
    steps: int
    tokens: int
    seconds: float


@dataclass(slots=True)
class _Course:
    """The progress of a run: what has to be stored to resume it."""

    step: int = 0
    start: float = math.inf
    best: float = math.inf
    best_step: int = 0
    idle: int = 0
    ended: bool = False


class Trainer:
    """Trains a model on some windows of text and evaluates it on others.

    A model that is pruned during the run is evaluated from its last cut on.
    """

    def __init__(
        self,
        accelerator: Any,
        learner: Learner,
        loss: Loss,
        regime: Regime,
        folder: Path,
        seed: int,
        gradual: Gradual | None = None,
    ) -> None:
        self._accelerator = accelerator
        self._learner = learner
        self._regime = regime
        self._seed = seed
        self._gradual = gradual
        self._state = folder / "model-training.safetensors"
        self._best = folder / "model-best.safetensors"
        if regime.checkpointing:
            learner.model.activation_checkpointing_enable({"use_reentrant": False})
        learner.model.train()
        self._module = accelerator.prepare(Beside(learner.model, loss))
        learner.masks = {name: mask.to(accelerator.device) for name, mask in learner.masks.items()}
        groups = [
            {"params": [parameter], "size": learner.sizes.get(name, 1.0)}
            for name, parameter in learner.parameters.items()
        ]
        self._optimizer = torch.optim.AdamW(
            groups, lr=regime.rate, betas=_BETAS, weight_decay=0.0, fused=True
        )

    def run(self, tokens: Tensor, targets: Targets, held: int, progress: Progress) -> Trained:
        """Train on all windows but the last `held`, and restore the best weights at the end.

        tokens: `[windows, length]`. Raises UsageError, naming the number of windows that fit, if memory does
        not suffice.
        """
        course = self._resume()
        learned = torch.arange(len(tokens) - held)
        held_out = torch.arange(len(tokens) - held, len(tokens))
        progress.start("train", self._regime.steps, course.step)
        if course.start == math.inf:
            course.start = self._loss(tokens, targets, held_out)
            course.best = math.inf if self._gradual else course.start
            self._save(course, best=self._gradual is None)
        seen = 0
        spent = 0.0
        for chosen in batches(len(learned), self._regime, self._seed, course.step):
            if course.ended:
                break
            began = time.perf_counter()
            finite = self._step(tokens, targets, chosen, course.step)
            spent = spent + time.perf_counter() - began
            seen = seen + chosen.numel() * tokens.shape[1]
            course.step += 1
            if not finite or course.step in self._looks():
                loss = self._loss(tokens, targets, held_out) if finite else math.inf
                self._look(course, loss, progress)
            progress.step(f"held-out loss {course.best:.4f}, {course.start:.4f} at the start")
        self._restore_best()
        return Trained(course.start, course.best, course.best_step, course.step, seen, spent)

    def _looks(self) -> set[int]:
        steps = self._regime.steps
        checks = self._regime.checks
        return {round(steps * look / checks) for look in range(1, checks + 1)} | {steps}

    def _step(self, tokens: Tensor, targets: Targets, chosen: Tensor, step: int) -> bool:
        """Do one step; return whether its gradient was finite. If it was not, the weights do not change."""
        if self._gradual:
            self._gradual.cut(self._learner, step)
        mine = chosen[self._accelerator.process_index :: self._accelerator.num_processes]
        pieces = mine.split(self._regime.micro)
        for place, piece in enumerate(pieces):
            with nullcontext() if place == len(pieces) - 1 else self._accelerator.no_sync(self._module):
                self._backward(tokens, targets, piece, len(piece) / len(mine))
        apply_masks(self._learner)
        norm = torch.nn.utils.clip_grad_norm_(self._learner.parameters.values(), self._regime.clip)
        finite = bool(torch.isfinite(norm))
        if finite:
            share = rate(
                self._regime.schedule, step, self._regime.steps, self._regime.warmup, self._regime.floor
            )
            for group in self._optimizer.param_groups:
                group["lr"] = self._regime.rate * share * group["size"]
            self._optimizer.step()
            if self._gradual:
                self._gradual.cut(self._learner, self._regime.steps)
        self._optimizer.zero_grad(set_to_none=True)
        return finite

    def _backward(self, tokens: Tensor, targets: Targets, piece: Tensor, share: float) -> None:
        try:
            with self._autocast():
                loss = self._module(
                    tokens[piece].to(self._accelerator.device), targets.of(piece, self._accelerator.device)
                )
            self._accelerator.backward(loss * share)
        except RuntimeError as error:
            if not is_memory(error):
                raise
            raise UsageError(self._smaller(tokens, targets, piece)) from None

    def _smaller(self, tokens: Tensor, targets: Targets, piece: Tensor) -> str:
        """Return the error message for a `piece` that did not fit: how many windows would."""
        device = self._accelerator.device
        length = tokens.shape[1]

        def tried(size: int) -> None:
            self._optimizer.zero_grad(set_to_none=True)
            with self._autocast():
                self._module(tokens[piece[:size]].to(device), targets.of(piece[:size], device)).backward()

        if fits := what_fits(len(piece), tried):
            return (
                f"out of memory with {len(piece)} windows of {length} tokens at once: --micro {fits} fits,"
                " and gives the same result"
            )
        return (
            f"out of memory with one window of {length} tokens: pass --checkpointing, a smaller"
            " --calib-window, or --method lora"
        )

    @torch.no_grad()
    def _loss(self, tokens: Tensor, targets: Targets, windows: Tensor) -> float:
        """Return the loss of held-out windows; every process gets that of the first."""
        module = self._accelerator.unwrap_model(self._module)
        device = self._accelerator.device
        module.eval()
        total = torch.zeros((), dtype=torch.float64)
        for piece in windows.split(self._regime.micro):
            with self._autocast():
                total += (
                    float(module(tokens[piece].to(device), targets.of(piece, device)))
                    * len(piece)
                    / len(windows)
                )
        module.train()
        from accelerate.utils import broadcast

        return float(broadcast(total.float().to(device)))

    def _look(self, course: _Course, loss: float, progress: Progress) -> None:
        growing = self._gradual is not None and course.step <= self._gradual.stop
        better = loss < course.best and not growing
        if not loss < math.inf or loss > _DIVERGED * course.best:
            progress.note(
                f"diverged at step {course.step}: held-out loss {loss:.4f} after {course.best:.4f}; the best"
                " so far is kept"
            )
            course.ended = True
        course.idle = 0 if better or growing else course.idle + 1
        course.ended = course.ended or course.idle > self._regime.patience
        if better:
            course.best = loss
            course.best_step = course.step
        self._save(course, best=better)

    def _save(self, course: _Course, *, best: bool) -> None:
        if self._accelerator.is_main_process:
            if best:
                training_state.save(self._best, self._learner.parameters, {})
            facts = {name: getattr(course, name) for name in _Course.__slots__}
            training_state.save(
                self._state, training_state.of_training(self._learner.parameters, self._optimizer), facts
            )

    def _resume(self) -> _Course:
        if not self._state.exists():
            return _Course()
        stored, facts = training_state.load(self._state)
        training_state.restore(self._learner.parameters, self._optimizer, stored)
        return _Course(**facts)

    @torch.no_grad()
    def _restore_best(self) -> None:
        self._accelerator.wait_for_everyone()
        if not self._best.exists():
            raise UsageError(
                "the model diverged before it had the zeros asked for: lower --rate, or give it more --steps"
            )
        for name, tensor in training_state.load(self._best)[0].items():
            self._learner.parameters[name].copy_(tensor)

    def _autocast(self) -> Any:
        return torch.autocast(self._accelerator.device.type, torch.bfloat16, enabled=self._regime.bfloat16)


def batches(windows: int, regime: Regime, seed: int, start: int = 0) -> Iterator[Tensor]:
    """Yield the windows of each step from `start` on: each window once before any a second time.

    windows: number of windows to draw from; start: first step to yield, so that a resumed run continues in
    the same order.
    """
    draw = torch.Generator().manual_seed(seed)
    order = torch.empty(0, dtype=torch.int64)
    for step in range(regime.first + regime.steps):
        while len(order) < regime.batch:
            order = torch.cat([order, torch.randperm(windows, generator=draw)])
        if step >= regime.first + start:
            yield order[: regime.batch]
        order = order[regime.batch :]
