"""Cost of a model without some of its sub-blocks: many removals measured in one pass over its blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from secateur.calibrate.input_statistics import BATCH_TOKENS
from secateur.core.footprint import dropped_halves
from secateur.core.graph import Block
from secateur.criteria.depth import DepthCriterion
from secateur.pipeline.prune.compared_positions import spread_positions, variants_at_once
from secateur.tensors.layer_stream import SUB_BLOCKS, LayerStream, LiveBlock, alone, without

Variant = tuple[frozenset[str], tuple[str, ...]]
Path = tuple[Variant, ...]
OpenMerged = Callable[[int, tuple[str, ...]], AbstractContextManager[LiveBlock]]
"""Loads a block into which the blocks of these names are merged."""


@dataclass(frozen=True, slots=True)
class Removal:
    """What goes, and which blocks take in what went: `drop` and `merge` as in `Plan`."""

    drop: tuple[str, ...] = ()
    merge: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


class BlockAblation:
    """The mean cost of each of several removals.

    Removals that agree up to some block share the states before it.

    tokens: ids `[windows, tokens]`. merged: opens a block with others merged into it, for removals that
    merge. last: compare last states instead of predictions.
    """

    def __init__(
        self,
        stream: LayerStream,
        blocks: Sequence[Block],
        tokens: Tensor,
        criterion: DepthCriterion,
        *,
        merged: OpenMerged | None = None,
        last: bool = False,
    ) -> None:
        self._stream = stream
        self._blocks = blocks
        self._criterion = criterion
        self._merged = merged
        self._last = last
        (self._embedded,) = stream.embed([tokens])
        self._step = max(1, BATCH_TOKENS // tokens.shape[1])
        # The last position of a window is followed by nothing known.
        known = torch.arange(tokens.numel()).view(tokens.shape)[:, :-1].flatten()
        self._places = known[spread_positions(len(known))]
        self._targets = tokens.flatten()[self._places + 1]
        (self._dense,) = self._finals([Removal()])

    def __call__(self, removals: Sequence[Removal]) -> list[float]:
        """Return the mean cost of each removal; as many at a time as memory allows."""
        ahead = variants_at_once(self._embedded.nbytes)
        found: list[float] = []
        for start in range(0, len(removals), ahead):
            finals = self._finals(removals[start : start + ahead])
            found += self._compared(finals) if self._last else self._predicted(finals)
        return found

    def _finals(self, removals: Sequence[Removal]) -> list[Tensor]:
        """Return the last states at the positions compared, `[positions, hidden_size]`, of each removal."""
        paths: list[Path] = [()] * len(removals)
        states: dict[Path, Tensor] = {(): self._embedded}
        for block in self._blocks:
            paths = [(*path, _variant(block, removal)) for path, removal in zip(paths, removals, strict=True)]
            states = self._advanced(block.index, states, list(dict.fromkeys(paths)))
        return [states[path].flatten(0, 1)[self._places] for path in paths]

    def _advanced(
        self, index: int, states: Mapping[Path, Tensor], paths: Sequence[Path]
    ) -> dict[Path, Tensor]:
        found = {path: states[path[:-1]] for path in paths}
        running = [path for path in paths if len(path[-1][0]) < 2]
        for taken in dict.fromkeys(path[-1][1] for path in running):
            with self._open(index, taken) as live:
                for path in running:
                    if path[-1][1] == taken:
                        with without(live, path[-1][0]):
                            found[path] = torch.cat([live(batch) for batch in found[path].split(self._step)])
        return found

    def _open(self, index: int, taken: tuple[str, ...]) -> AbstractContextManager[LiveBlock]:
        if not taken:
            return self._stream.open(index)
        assert self._merged is not None, "only a criterion that merges removes blocks into others"
        return self._merged(index, taken)

    def _compared(self, finals: Sequence[Tensor]) -> list[float]:
        return [float(self._criterion(self._dense, final, self._targets).mean()) for final in finals]

    def _predicted(self, finals: Sequence[Tensor]) -> list[float]:
        return predicted(self._stream, self._criterion, self._dense, finals, self._targets)


def predicted(
    stream: LayerStream, criterion: DepthCriterion, dense: Tensor, finals: Sequence[Tensor], targets: Tensor
) -> list[float]:
    """Return, for each of several models, the mean cost of its predictions compared with the whole model's.

    dense, finals: last states `[positions, hidden_size]`; targets: the token that follows each. Logits are
    compared as they come: for each position, those of the whole model and of every other lie next to each
    other.
    """
    rows = torch.stack([dense, *finals], 1).flatten(0, 1)
    models = len(finals) + 1
    totals = torch.zeros(len(finals), dtype=torch.float64)
    start = 0
    pending: Tensor | None = None
    for logits in stream.logits(rows):
        pending = logits if pending is None else torch.cat([pending, logits])
        count = len(pending) // models
        whole, *others = pending[: count * models].view(count, models, -1).unbind(1)
        following = targets[start : start + count]
        pending = pending[count * models :]
        start = start + count
        totals += torch.stack([criterion(whole, other, following).double().sum() for other in others])
    return (totals / len(targets)).tolist()


def passing(
    stream: LayerStream, tokens: Tensor, *, last: bool
) -> tuple[list[Tensor], Callable[[int, str], tuple[int, int]]]:
    """Return states `[positions, hidden_size]` of the whole model before block 0 and after every sub-block.

    last: of the last position of each window; otherwise of some spread over the windows. The second result
    says between which of these states a block or a sub-block lies.
    """
    (states,) = stream.embed([tokens])
    step = max(1, BATCH_TOKENS // tokens.shape[1])
    count = tokens.numel()
    ends = torch.arange(tokens.shape[1] - 1, count, tokens.shape[1])
    places = ends if last else spread_positions(count)
    seen = [states.flatten(0, 1)[places]]
    for index in range(len(stream)):
        with stream.open(index) as live:
            for part in SUB_BLOCKS:
                with alone(live, part):
                    states = torch.cat([live(batch) for batch in states.split(step)])
                seen.append(states.flatten(0, 1)[places])
    spans = {"": (0, 2), "attn": (0, 1), "ffn": (1, 2)}
    return seen, lambda index, part: (2 * index + spans[part][0], 2 * index + spans[part][1])


def _variant(block: Block, removal: Removal) -> Variant:
    return dropped_halves(block, removal.drop), removal.merge.get(str(block.index), ())
