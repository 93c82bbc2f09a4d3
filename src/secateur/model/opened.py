"""A model opened for work: where it is stored, what it is made of, and its digest."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from secateur.core.graph import Graph
from secateur.core.source import Source
from secateur.model.families import BASE_KEY
from secateur.model.graph import read_graph
from secateur.model.nonuniform import register
from secateur.model.source import open_source
from secateur.model.stream import ModelStream


@dataclass(frozen=True)
class Opened:
    """A source and its graph."""

    source: Source
    graph: Graph

    @cached_property
    def digest(self) -> str:
        """Digest of the stored weights; reading a large model for it takes a while, once."""
        return self.source.digest()

    def stream(self, outside: torch.dtype = torch.float32) -> ModelStream:
        """Return the model as a stream of blocks, weights outside the blocks rounded to `outside`."""
        return ModelStream(self.source, self.graph, outside)


def open_model(ref: str) -> Opened:
    """Open a folder, a hub id, a GGUF file or a built-in name; raises SourceError or UnsupportedModelError."""
    source = open_source(ref)
    if BASE_KEY in source.config:
        # transformers would ask to run the folder's own code, which says the same as ours.
        register()
    return Opened(source, read_graph(source))
