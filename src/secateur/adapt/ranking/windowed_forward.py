"""Run a text through a model half by half, each as wide as asked, and say how well what comes out predicts."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from secateur.core.graph import Graph
from secateur.runtime.elastic.attention import Sight, Table, looked, seen, table_of
from secateur.runtime.elastic.model import ElasticParts

_POSITIONS = 128


class _Windows:
    """Attention within windows that lie one after another (see `runtime.elastic.attention.Attending`)."""

    def __init__(self, body: ElasticParts, count: int, length: int) -> None:
        self._count = count
        self._length = length
        positions = torch.arange(length).repeat(count)
        self._tables = {name: table_of(positions, *found(length)) for name, found in body.rotary.items()}

    def table(self, rotary: str) -> Table:
        return self._tables[rotary]

    def attend(self, _block: int, queries: Tensor, keys: Tensor, values: Tensor, how: Sight) -> Tensor:
        # [windows, heads or groups, length, head_dim]
        asked, known, held = (
            part.unflatten(0, (self._count, self._length)).transpose(1, 2) for part in (queries, keys, values)
        )
        heads = queries.shape[1]
        groups = keys.shape[1]
        mask = seen(0, 0, self._length, how.window).repeat(heads // groups, 1)
        found = looked(asked.reshape(self._count, groups, -1, how.head_dim), known, held, mask, how)
        return found.reshape(self._count, heads, self._length, -1).transpose(1, 2).flatten(0, 1)

    def absent(self, _block: int) -> None:
        return None


class Passing:
    """Windows of text before, between and after the halves of a model, all of whose units are held.

    tokens: `[windows, length]`; scored: how many of each window, the last ones, are predicted.
    """

    def __init__(self, body: ElasticParts, graph: Graph, tokens: Tensor, scored: int) -> None:
        self._body = body
        self._tokens = tokens
        self._windows = _Windows(body, *tokens.shape)
        for group in (group for block in graph.blocks for group in block.groups if group.name in body.halves):
            body.halves[group.name].hold(group.size)
        self._from = (torch.arange(tokens.numel()).view(tokens.shape)[:, -scored - 1 : -1]).flatten()
        self._meant = tokens[:, -scored:].flatten()

    @property
    def halves(self) -> list[str]:
        """The groups (`3.kv`, `3.ffn`) in the order in which states pass them."""
        return list(self._body.halves)

    @torch.inference_mode()
    def embedded(self) -> Tensor:
        """Return the states before the first block, `[windows * length, hidden_size]`."""
        return self._body.embed(self._tokens.flatten())

    @torch.inference_mode()
    def through(self, group: str, units: int, states: Tensor) -> Tensor:
        """Return the states after one half that has so many units."""
        if not units:
            return states
        half = self._body.halves[group]
        half.show(units)
        return half(states, self._windows)

    @torch.inference_mode()
    def loss(self, states: Tensor) -> float:
        """Return the mean negative log likelihood of the scored tokens, in nats, from the states after the last block."""
        total = 0.0
        for places, meant in zip(self._from.split(_POSITIONS), self._meant.split(_POSITIONS), strict=True):
            total += float(cross_entropy(self._body.logits(states[places]), meant, reduction="sum"))
        return total / len(self._meant)
