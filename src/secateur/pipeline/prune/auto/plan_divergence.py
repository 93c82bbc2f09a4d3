"""Measure how far a plan moves a model's predictions before anything is written, repairs included."""

from __future__ import annotations

import torch
from torch import Tensor

from secateur.calibrate.input_statistics import HiddenStates
from secateur.core.footprint import dropped_halves
from secateur.core.plan import Plan
from secateur.criteria.depth import DEPTH_CRITERIA
from secateur.model.handle import ModelHandle
from secateur.pipeline.prune.compared_positions import spread_positions
from secateur.pipeline.prune.depth.block_ablation import predicted
from secateur.pipeline.prune.depth.gap_repair import close_gap, gaps
from secateur.pipeline.prune.width.unit_removal import carve, inputs_kept
from secateur.tensors.layer_stream import alone, sub_blocks, without
from secateur.tensors.precision import arithmetic
from secateur.transform.unit_repair import UNIT_REPAIRS


class PlanDivergence:
    """The dense model's predictions on held-out windows, and how far a plan moves them.

    Each plan takes one pass over the blocks.

    fit: ids `[windows, tokens]` from which repairs learn; held_out: ids on which predictions are compared.
    """

    def __init__(self, model: ModelHandle, fit: Tensor, held_out: Tensor, seed: int) -> None:
        self._model = model
        self._fit = fit
        self._held_out = held_out
        self._seed = seed
        self._places = spread_positions(held_out.numel())
        self._dense = self._finals(Plan(model=model.digest))

    def __call__(self, plan: Plan) -> float:
        """Return the mean divergence, in nats per token, of the model that `plan` makes.

        plan: one that neither merges blocks nor prunes single weights.
        """
        finals = self._finals(plan)
        with arithmetic("bfloat16"):
            (cost,) = predicted(
                self._model.stream(),
                DEPTH_CRITERIA["kl"].function,
                self._dense,
                [finals],
                self._held_out.flatten()[self._places],
            )
        return max(cost, 0.0)

    def _finals(self, plan: Plan) -> Tensor:
        """Return the last states at the positions compared, `[positions, hidden_size]`."""
        stream = self._model.stream()
        repair = UNIT_REPAIRS[plan.execution.unit_repair]
        closing = gaps(self._model.graph, plan.drop) if plan.execution.closes_gaps else {}
        fit = HiddenStates(stream, self._fit) if repair.needs or closing else None
        seen = HiddenStates(stream, self._held_out)
        with arithmetic("bfloat16"):
            for block in self._model.graph.blocks:
                removed = dropped_halves(block, plan.drop)
                if len(removed) == 2:
                    continue
                with stream.open(block.index) as live, without(live, removed):
                    for part, tensors in sub_blocks(block, removed):
                        with alone(live, part):
                            carve(live, fit or seen, tensors, plan.keep, repair, self._seed)
                            if fit and (gap := closing.get((block.index, part))):
                                whole = self._model.stream()
                                close_gap(live, part, fit, whole, gap, inputs_kept(live, plan.keep))
                            for states in (fit, seen) if fit else (seen,):
                                states.advance(live)
        return torch.cat([batch.flatten(0, 1) for batch in seen.batches()])[self._places]
