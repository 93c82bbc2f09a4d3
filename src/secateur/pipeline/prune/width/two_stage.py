"""2SSP: every FFN loses the same share of its neurons, then whole attention sub-blocks go, one by one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor

from secateur.allocate.units import SPREADS, Curve, SpreadContext, parameters_gone
from secateur.allocate.units.two_stage import stages
from secateur.core.progress import Progress
from secateur.criteria.depth import DEPTH_CRITERIA
from secateur.model.block_stream import ModelStream, StreamedBlock
from secateur.model.handle import ModelHandle
from secateur.pipeline.prune.depth.block_ablation import BlockAblation
from secateur.pipeline.prune.depth.search import RemovalSearch, one_by_one
from secateur.pipeline.prune.width.unit_ablation import silence
from secateur.pipeline.prune.width.unit_ranking import Ranked
from secateur.tensors.precision import arithmetic
from secateur_runtime.errors import UsageError

NAME = "2ssp"
PROBE_WINDOWS = 8
ATTENTION = "attention"
"""Stands for a group whose units are the attention sub-blocks of the blocks that are narrowed."""


class TwoStage:
    """Both stages as one spread over the FFN groups `ranked`.

    Its ratio is a share of all parameters of their blocks. Raises UsageError for blocks of unequal size.
    """

    def __init__(self, model: ModelHandle, ranked: Mapping[str, Ranked]) -> None:
        self._model = model
        self._ranked = ranked
        own = [block for block in model.graph.blocks if any(group.name in ranked for group in block.groups)]
        sizes = {
            tuple(
                sum(model.graph.tensors[name].numel for name in block.halves[part])
                for part in ("ffn", "attn")
            )
            for block in own
        }
        if len(sizes) > 1:
            raise UsageError(
                "--allocation 2ssp needs blocks with sub-blocks of equal size, and these differ: take another"
                " --allocation"
            )
        ((self._ffn, self._attention),) = sizes
        # The first block makes the states that all others change; the last makes what the head reads.
        self.candidates = tuple(
            f"{block.index}.attn" for block in own if 0 < block.index < len(model.graph.blocks) - 1
        )
        self._curves = {name: one.curve for name, one in ranked.items()}
        self.curves = self._curves | {ATTENTION: Curve((0.0,) * (len(self.candidates) + 2), self._attention)}

    def cuts(self, ratio: float) -> dict[str, int]:
        """Return how many neurons each FFN loses, and how many attention sub-blocks go.

        These give what FFNs cannot. Raises UsageError if both together cannot lose so much.
        """
        total = sum(curve.size * curve.price for curve in self._curves.values())
        most = parameters_gone(self._curves, {name: curve.cuts[-1] for name, curve in self._curves.items()})
        wanted = ratio * len(self._curves) * (self._ffn + self._attention)
        count = max(
            stages(len(self._curves), ratio, self._ffn, self._attention).attention,
            math.ceil((wanted - most) / self._attention),
        )
        count = min(count, len(self.candidates))
        share = max(wanted - count * self._attention, 0.0) / total
        return SPREADS[NAME].function(self._curves, share, SpreadContext()) | {ATTENTION: count}

    def foreseen(self, cuts: Mapping[str, int]) -> tuple[str, ...]:
        """Return attention sub-blocks of the size of those that will go."""
        return self.candidates[: cuts.get(ATTENTION, 0)]

    def chosen(self, cuts: Mapping[str, int], tokens: Tensor, progress: Progress) -> tuple[str, ...]:
        """Return the attention sub-blocks that go, each time the one that the narrowed model misses least."""
        if not cuts[ATTENTION]:
            return ()
        with arithmetic("bfloat16"):
            outcomes = BlockAblation(
                SilencedStream(self._model, self._ranked, cuts),
                self._model.graph.blocks,
                tokens[:PROBE_WINDOWS],
                DEPTH_CRITERIA["loss"].function,
            )
            goes = RemovalSearch(
                dict.fromkeys(self.candidates, self._attention), lambda drop: len(drop) >= cuts[ATTENTION]
            )
            return one_by_one(goes, outcomes, progress).drop


class SilencedStream(ModelStream):
    """The blocks of a model, some of whose units are silent.

    ranked: group name -> its units in the order in which they leave. cuts: group name -> how many have left.
    """

    def __init__(self, model: ModelHandle, ranked: Mapping[str, Ranked], cuts: Mapping[str, int]) -> None:
        super().__init__(model.source, model.graph)
        self._ranked = ranked
        self._cuts = cuts

    @contextmanager
    def open(self, index: int) -> Iterator[StreamedBlock]:
        """Load a block and silence its units."""
        with super().open(index) as live:
            silence(live, self._ranked, self._cuts)
            yield live
