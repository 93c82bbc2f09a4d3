"""A model before a plan removes anything: merged, rotated, with output biases, with fewer channels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from secateur.core.context import RunContext
from secateur.core.graph import Graph
from secateur.core.plan import Plan
from secateur.model.block_stream import ModelStream
from secateur.model.formats.open_source import read_as
from secateur.model.handle import ModelHandle
from secateur.model.views.hidden_channels import Narrowed
from secateur.model.views.merged import Merged
from secateur.pipeline.prune.rotation import rotated
from secateur.pipeline.prune.width.repair_units import with_repair_biases
from secateur.tensors.storage_dtype import storage_type


@dataclass(frozen=True, slots=True)
class PreparedModel:
    """A model that a plan is about to be applied to.

    model: as it computes, without the hidden channels that go.
    kept: the channels that stay, ascending. dtype: the type that it is stored in.
    folds: tensors that are rescaled where channels go.
    """

    model: ModelHandle
    kept: tuple[int, ...]
    dtype: torch.dtype
    folds: frozenset[str] = frozenset()

    @property
    def graph(self) -> Graph:
        """The graph of the model, with every channel."""
        return self.model.graph

    @property
    def cuts_channels(self) -> bool:
        """Whether hidden channels go."""
        return len(self.kept) < self.graph.hidden_size

    def stream(self) -> ModelStream:
        """Return the model as a stream of blocks, what lies outside them as it is stored."""
        # A narrowed model rounds as it is read: what is rescaled must not be rounded once more.
        return self.model.stream(torch.float32 if self.cuts_channels else self.dtype)

    def stored(self, name: str) -> Tensor:
        """Return a tensor as it is stored, but with every channel."""
        source = self.model.source
        return source.stored(name) if isinstance(source, Narrowed) else read_as(source, name, self.dtype)


def prepared(model: ModelHandle, plan: Plan, tokens: Tensor, context: RunContext) -> PreparedModel:
    """Return `model` as it is before `plan` removes anything from it.

    tokens: ids `[windows, tokens]` of the plan's text. Raises UsageError for a rotation or a repair that the
    family cannot take.
    """
    if plan.merge:
        model = model.view(Merged(model, plan.merge), model.graph)
    if plan.execution.rotation:
        model = rotated(model, plan.execution.rotation, tokens, plan.execution.seed, context)
    if plan.keep:
        model = with_repair_biases(model, plan)
    graph = model.graph
    kept = plan.keep.get(graph.hidden.name, tuple(range(graph.hidden_size)))
    dtype = storage_type(context.settings.dtype, graph.tensors)
    if len(kept) == graph.hidden_size:
        return PreparedModel(model, kept, dtype)
    narrowed = Narrowed(model, kept, dtype)
    return PreparedModel(model.view(narrowed, graph), kept, dtype, frozenset(narrowed.folds))
