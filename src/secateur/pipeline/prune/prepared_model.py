"""A model before a plan removes anything: merged, rotated, with output biases, with fewer channels."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from secateur.core.context import RunContext
from secateur.core.plan import Plan
from secateur.model.block_stream import ModelStream
from secateur.model.handle import ModelHandle
from secateur.model.views.hidden_channels import Narrowed
from secateur.model.views.merged import Merged
from secateur.pipeline.prune.rotation import rotated
from secateur.pipeline.prune.width.repair_units import with_repair_biases
from secateur.tensors.storage_dtype import storage_type


@dataclass(frozen=True)
class PreparedModel(ModelHandle):
    """A model that a plan is about to be applied to.

    source: computes with the channels that stay, and gives each tensor as it is stored.
    """

    source: Narrowed

    @property
    def cuts_channels(self) -> bool:
        """Whether hidden channels go."""
        return len(self.source.kept) < self.graph.hidden_size

    def whole_stream(self) -> ModelStream:
        """Return the model as a stream of blocks, what lies outside them as it is stored."""
        return ModelStream(self.source, self.graph)


def prepared(model: ModelHandle, plan: Plan, tokens: Tensor, context: RunContext) -> PreparedModel:
    """Return `model` as it is before `plan` removes anything from it.

    tokens: ids `[windows, tokens]` of the plan's text. Raises UsageError for a rotation or a repair that the
    family cannot take.
    """
    if plan.merge:
        model = model.view(Merged(model.source, model.graph, plan.merge), model.graph)
    if plan.execution.rotation:
        model = rotated(model, plan.execution.rotation, tokens, plan.execution.seed, context)
    model = with_repair_biases(model, plan)
    graph = model.graph
    kept = plan.keep.get(graph.hidden.name, tuple(range(graph.hidden_size)))
    dtype = storage_type(context.settings.dtype, graph.tensors)
    return PreparedModel(Narrowed(model.source, graph, kept, dtype), graph, kept_in=model.kept_in)
