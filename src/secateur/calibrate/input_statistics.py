"""Gather running moments of the inputs of a block's linears, one batch of calibration windows at a time."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Collection, Iterator, Mapping
from copy import copy
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from secateur.core.graph import Linear
from secateur.tensors.layer_stream import LayerStream, LiveBlock
from secateur.tensors.stats import LinearStats

BATCH_TOKENS = 512
"""Tokens run through a block at once; four times as many took as long and 60 MB more on SmolLM2-135M."""


class HiddenStates:
    """The calibration hidden states at one depth, `[windows, tokens, hidden_size]` float32.

    They stay in memory up to `budget` bytes; larger ones are in a memory-mapped scratch file in `folder`.
    """

    def __init__(
        self, stream: LayerStream, tokens: Tensor, *, budget: int = 1 << 30, folder: Path | None = None
    ) -> None:
        self._step = max(1, BATCH_TOKENS // tokens.shape[1])
        self._budget = budget
        self._folder = folder
        self._states = self._allocated((*tokens.shape, stream.hidden_size))
        for batch, embedded in zip(self.batches(), stream.embed(tokens.split(self._step)), strict=True):
            batch.copy_(embedded)

    def batches(self) -> Iterator[Tensor]:
        """Yield views `[windows, tokens, hidden_size]` of about `BATCH_TOKENS` tokens each."""
        yield from self._states.split(self._step)

    def advance(self, block: LiveBlock) -> None:
        """Replace every state by the block's output for it."""
        for batch in self.batches():
            batch.copy_(block(batch))

    def twin(self) -> HiddenStates:
        """Return a copy of the states that can be advanced on its own."""
        other = copy(self)
        other._states = self._allocated(self._states.shape)
        for mine, theirs in zip(self.batches(), other.batches(), strict=True):
            theirs.copy_(mine)
        return other

    def among(self, channels: Tensor, width: int) -> HiddenStates:
        """Return the same states as `channels` of wider states, `width` channels in all, the others zero."""
        other = copy(self)
        other._states = self._allocated((*self._states.shape[:2], width))
        for mine, theirs in zip(self.batches(), other.batches(), strict=True):
            theirs.zero_().index_copy_(-1, channels, mine)
        return other

    @property
    def states(self) -> Tensor:
        """All of them, `[windows, tokens, hidden_size]`; changes when they are advanced."""
        return self._states

    def _allocated(self, shape: tuple[int, ...]) -> Tensor:
        if 4 * math.prod(shape) <= self._budget:
            return torch.empty(shape)
        # The file has no name any more, so nothing remains of it however the run ends.
        with tempfile.TemporaryFile(dir=self._folder) as file:
            return torch.from_numpy(np.memmap(file, np.float32, "w+", shape=tuple(shape)))


class _Moments:
    """Sums over tokens; float64 where sums are long, float32 for the products of a batch."""

    def __init__(self, in_features: int, needs: Collection[str]) -> None:
        self.tokens = 0
        self.total = torch.zeros(in_features, dtype=torch.float64)
        self.square = torch.zeros(in_features, dtype=torch.float64)
        self.gram = torch.zeros(in_features, in_features) if "gram" in needs else None
        self.windows = 0
        self.size_square = torch.zeros(in_features, dtype=torch.float64) if "input_abs" in needs else None

    def add(self, x: Tensor) -> None:
        flat = x.reshape(-1, x.shape[-1])
        self.tokens += flat.shape[0]
        self.total += flat.sum(0)
        self.square += flat.square().sum(0)
        if self.gram is not None:
            self.gram.addmm_(flat.T, flat)
        if self.size_square is not None:
            self.windows += x.shape[0]
            self.size_square += x.abs().mean(1).square().sum(0)

    def stats(self, seed: int) -> LinearStats:
        gram = None if self.gram is None else self.gram.div_(self.tokens)
        size = None if self.size_square is None else (self.size_square / max(self.windows, 1)).sqrt().float()
        mean_square = (self.square / max(self.tokens, 1)).float()
        mean = (self.total / max(self.tokens, 1)).float()
        return LinearStats(self.tokens, mean_square, mean, gram, seed=seed, input_abs=size)


def collect(
    block: LiveBlock, linears: Collection[Linear], hidden: HiddenStates, needs: Collection[str], seed: int = 0
) -> dict[str, LinearStats]:
    """Return the input moments of `linears` over all calibration states.

    Linears of one stage share one object.

    needs: `gram` and `input_abs` ask for these in addition to the moments of single inputs; an empty
    collection skips the forward passes.
    """
    sums = _MomentSums(linears, dict.fromkeys((linear.tensor for linear in linears), needs))
    for batch in hidden.batches() if needs else ():
        block.tap(sums.tensors, batch, sums.add)
    return sums.stats(seed)


def collect_passing(
    block: LiveBlock, needs: Mapping[str, Collection[str]], hidden: HiddenStates, seed: int = 0
) -> dict[str, LinearStats]:
    """Return input moments as `collect` does, and advance the states in the same pass.

    needs: tensor name of a linear -> which moments of its inputs are asked for.
    """
    sums = _MomentSums([linear for linear in block.block.linears if linear.tensor in needs], needs)
    for batch in hidden.batches():
        batch.copy_(block.watch(sums.tensors, batch, sums.add))
    return sums.stats(seed)


class _MomentSums:
    """Moments of several linears' inputs, gathered once for those of one stage."""

    def __init__(self, linears: Collection[Linear], needs: Mapping[str, Collection[str]]) -> None:
        leaders = {linear.stage: linear for linear in reversed(list(linears))}
        shared = {
            stage: {need for linear in linears if linear.stage == stage for need in needs[linear.tensor]}
            for stage in leaders
        }
        self._moments = {
            leader.tensor: _Moments(leader.in_features, shared[stage]) for stage, leader in leaders.items()
        }
        self._leader = {linear.tensor: leaders[linear.stage].tensor for linear in linears}

    @property
    def tensors(self) -> tuple[str, ...]:
        """The linears whose inputs must be seen."""
        return tuple(self._moments)

    def add(self, tensor: str, inputs: Tensor) -> None:
        self._moments[tensor].add(inputs)

    def stats(self, seed: int) -> dict[str, LinearStats]:
        found = {tensor: moments.stats(seed) for tensor, moments in self._moments.items()}
        return {tensor: found[leader] for tensor, leader in self._leader.items()}
