"""A model opened for work: where it is stored, what it is made of, and its digest."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from secateur.core.graph import Graph
from secateur.model.block_stream import ModelStream
from secateur.model.config_defaults import completed
from secateur.model.families import SHAPES_KEY, Family, family_of
from secateur.model.formats.open_source import open_source
from secateur.model.graph_builder import read_graph
from secateur.model.transformers_model import transformers_config
from secateur.model.unequal_blocks import register
from secateur.tensors.source import Source


@dataclass(frozen=True)
class ModelHandle:
    """A source, its graph and its family.

    kept_in: folder for results computed once, for a process that must hold little memory.
    """

    source: Source
    graph: Graph
    family: Family
    kept_in: Path | None = field(default=None, kw_only=True)

    @cached_property
    def digest(self) -> str:
        """Digest of the stored weights; reading a large model for it takes a while, once."""
        return self.source.digest()

    @cached_property
    def config(self) -> Any:
        """The config, completed with the defaults of its class in transformers.

        Raises OutputError where `kept_in` cannot be written.
        """
        return (
            completed(self.source.config, self.kept_in)
            if self.kept_in
            else transformers_config(self.source.config)
        )

    def view(self, source: Source, graph: Graph | None = None) -> ModelHandle:
        """Return the model as `source` shows it, such as rotated.

        graph: of the view, where that is known already. The digest of a view is that of the model.
        """
        return replace(self, source=source, graph=graph or read_graph(source, self.family))

    def stream(self, outside: torch.dtype = torch.float32) -> ModelStream:
        """Return the model as a stream of blocks, weights outside the blocks rounded to `outside`."""
        return ModelStream(self.source, self.graph, outside)


def open_model(ref: str) -> ModelHandle:
    """Open a folder, a hub id, a GGUF file or a built-in name.

    Raises SourceError or UnsupportedModelError.
    """
    source = open_source(ref)
    family = family_of(source.config)
    return ModelHandle(source, read_graph(source, family), family)


def open_registered(src: str) -> ModelHandle:
    """Open a model, and register its type with transformers if its blocks have unequal widths.

    Raises as `open_model` does.
    """
    model = open_model(src)
    if SHAPES_KEY in model.source.config:
        register()
    return model
