"""The training loop against AdamW by hand in float64, and what it does when a run goes wrong."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from secateur.core.progress import Silent
from secateur.train.learner import Learner, Loss
from secateur.train.losses import Targets, likeliest
from secateur.train.schedule import rate
from secateur.train.trainer import Regime, Trained, Trainer, batches
from secateur_runtime.errors import UsageError

Sizes = st.integers(1, 9)
VOCABULARY = 7
HELD = 2
REGIME = Regime(steps=6, batch=2, micro=1, rate=0.05, warmup=2, clip=0.1, checks=1, bfloat16=False)
DRAW = torch.Generator().manual_seed(0)
TOKENS = torch.randint(VOCABULARY, (8, 10), generator=DRAW)
TEACHER = torch.randn(VOCABULARY, VOCABULARY, generator=DRAW)
START = torch.randn(VOCABULARY, VOCABULARY, generator=DRAW)
MASK = torch.rand(VOCABULARY, VOCABULARY, generator=DRAW) > 0.3


class Bigrams(nn.Module):
    """A model whose logits are a row of its one weight; it has memory for `limit` windows at once."""

    def __init__(self, limit: int = 99) -> None:
        super().__init__()
        self.table = nn.Parameter(START * MASK)
        self._limit = limit

    def forward(self, input_ids: Tensor, **_options: Any) -> SimpleNamespace:
        if len(input_ids) > self._limit:
            raise RuntimeError("DefaultCPUAllocator: not enough memory")
        return SimpleNamespace(logits=self.table[input_ids])


class Killed(Exception):
    """Ends a run from outside."""


class Killing(Silent):
    """Ends a run after so many steps."""

    def __init__(self, steps: int) -> None:
        self._left = steps

    def step(self, text: str = "") -> None:
        self._left -= 1
        if not self._left:
            raise Killed


def targets() -> Targets:
    return Targets(*likeliest(TEACHER[TOKENS], VOCABULARY, 1.0))


def trainer(folder: Path, model: Bigrams, regime: Regime) -> Trainer:
    from accelerate import Accelerator

    folder.mkdir(exist_ok=True)
    learner = Learner(model, {"table": model.table}, dict, {"table": MASK}, {"table": 0.5})
    return Trainer(Accelerator(cpu=True), learner, Loss(), regime, folder, 3)


def run(folder: Path, model: Bigrams, regime: Regime = REGIME) -> Trained:
    return trainer(folder, model, regime).run(TOKENS, targets(), HELD, Silent())


def loss_and_slope(table: Tensor, windows: Tensor) -> tuple[float, Tensor]:
    """Return the mean divergence from the teacher over `windows` and its gradient, float64."""
    known = targets()
    p = torch.zeros(len(windows), TOKENS.shape[1], VOCABULARY, dtype=torch.float64)
    p.scatter_(-1, known.tokens[windows].long(), known.logs[windows].double().exp())
    q = table[TOKENS[windows]].log_softmax(-1)
    slope = torch.zeros_like(table)
    change = (q.exp() * p.sum(-1, keepdim=True) - p) / TOKENS[windows].numel()
    slope.index_add_(0, TOKENS[windows].flatten(), change.flatten(0, 1))
    return float((p * (p.log() - q)).sum(-1).mean()), slope


def by_hand(regime: Regime) -> Tensor:
    """Return the table after all steps of AdamW with masks, clipping and a schedule, float64."""
    table = (START * MASK).double()
    first = torch.zeros_like(table)
    second = torch.zeros_like(table)
    for step, windows in enumerate(batches(len(TOKENS) - HELD, regime, 3)):
        slope = loss_and_slope(table, windows)[1] * MASK
        slope *= min(1.0, regime.clip / (float(slope.norm()) + 1e-6))
        first = 0.9 * first + 0.1 * slope
        second = 0.95 * second + 0.05 * slope.square()
        size = regime.rate * 0.5 * rate(regime.schedule, step, regime.steps, regime.warmup, regime.floor)
        mean = first / (1 - 0.9 ** (step + 1))
        power = second / (1 - 0.95 ** (step + 1))
        table = table - size * mean / (power.sqrt() + 1e-8)
    return table


@pytest.mark.parametrize(("micro", "clip"), [(1, 0.1), (2, 0.1), (1, 0.13)])
def test_it_is_adamw_with_masks_clipping_and_a_schedule(tmp_path: Path, micro: int, clip: float) -> None:
    """Gradients have norms of 0.12 to 0.15: the last case clips some of them."""
    model = Bigrams()
    regime = Regime(
        steps=6, batch=2, micro=micro, rate=0.05, warmup=2, clip=clip, checks=1, bfloat16=False, floor=0.2
    )
    done = run(tmp_path, model, regime)
    expected = by_hand(regime)
    torch.testing.assert_close(model.table.detach().double(), expected, rtol=1e-5, atol=2e-5)
    assert not model.table.detach()[~MASK].any()
    held = torch.arange(len(TOKENS) - HELD, len(TOKENS))
    assert done.start == pytest.approx(loss_and_slope((START * MASK).double(), held)[0], rel=1e-3)
    assert done.best == pytest.approx(loss_and_slope(expected, held)[0], rel=1e-3)
    assert done.best < done.start
    assert (done.best_step, done.steps, done.tokens) == (6, 6, 6 * 2 * 10)


def test_a_killed_run_continues_where_it_was_stored(tmp_path: Path) -> None:
    regime = Regime(steps=6, batch=2, micro=2, rate=0.05, warmup=2, checks=6, bfloat16=False)
    whole, killed, resumed = Bigrams(), Bigrams(), Bigrams()
    run(tmp_path / "whole", whole, regime)
    with pytest.raises(Killed):
        trainer(tmp_path / "killed", killed, regime).run(TOKENS, targets(), HELD, Killing(4))
    done = run(tmp_path / "killed", resumed, regime)
    assert torch.equal(resumed.table, whole.table)
    assert done.tokens == 2 * 2 * 10
    assert done.steps == 6


def test_a_run_that_makes_it_worse_ends_with_the_weights_it_started_with(tmp_path: Path) -> None:
    model = Bigrams()
    regime = Regime(steps=40, batch=2, micro=2, rate=400.0, warmup=0, checks=40, bfloat16=False)
    done = run(tmp_path, model, regime)
    assert torch.equal(model.table, START * MASK)
    assert done.best_step == 0
    assert done.best == done.start
    assert done.steps < 40


def test_a_gradient_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    model = Bigrams()
    loop = trainer(tmp_path, model, REGIME)
    broken = targets()
    broken.logs[:6] = math.nan
    done = loop.run(TOKENS, broken, HELD, Silent())
    assert torch.equal(model.table, START * MASK)
    assert (done.steps, done.best_step) == (1, 0)


def test_out_of_memory_names_the_number_of_windows_that_fits(tmp_path: Path) -> None:
    regime = Regime(steps=2, batch=4, micro=4, rate=0.05, checks=1, bfloat16=False)
    for limit, message in ((3, "4 windows of 10 tokens at once: --micro 2 fits"), (2, "--micro 2 fits")):
        # two windows are held out: a limit below that would fail before training
        with pytest.raises(UsageError, match=message):
            trainer(tmp_path / str(limit), Bigrams(limit), regime).run(TOKENS, targets(), HELD, Silent())


def _read(windows: int, steps: int, batch: int, first: int = 0, start: int = 0) -> list[int]:
    found = list(batches(windows, Regime(steps=steps, batch=batch, micro=1, rate=1.0, first=first), 3, start))
    assert all(len(chosen) == batch for chosen in found)
    return torch.cat(found).tolist() if found else []


@given(Sizes, Sizes)
def test_every_window_is_read_once_before_any_is_read_again(windows: int, batch: int) -> None:
    seen = torch.tensor(_read(windows, windows, batch))
    assert torch.bincount(seen, minlength=windows).tolist() == [batch] * windows


@given(Sizes, Sizes, Sizes, st.integers(0, 9))
def test_a_run_that_continues_reads_the_windows_that_come_next(
    windows: int, batch: int, steps: int, start: int
) -> None:
    """After a kill, and in the second of two runs on the same windows."""
    whole = _read(windows, 2 * steps, batch)
    assert _read(windows, steps, batch, first=steps) == whole[steps * batch :]
    assert (
        _read(windows, 2 * steps, batch, start=min(start, 2 * steps))
        == whole[min(start, 2 * steps) * batch :]
    )
