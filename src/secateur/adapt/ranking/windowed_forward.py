"""Run text through a model sub-block by sub-block at any widths, and measure the loss."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from secateur.core.graph import Graph
from secateur.runtime.elastic.attention import Sight, Table, looked, seen, table_of
from secateur.runtime.elastic.model import ElasticParts

_POSITIONS = 128


class _Windows:
    """Attention within consecutive windows (see `runtime.elastic.attention.Attending`)."""

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
    """Hidden states of windows of text before, between and after the sub-blocks of a model.

    All units are in memory. tokens: `[windows, length]`. scored: number of last tokens of each window that
    are predicted.
    """

    def __init__(self, body: ElasticParts, graph: Graph, tokens: Tensor, scored: int) -> None:
        self._body = body
        self._tokens = tokens
        self._windows = _Windows(body, *tokens.shape)
        for group in (group for block in graph.blocks for group in block.groups if group.name in body.halves):
            body.halves[group.name].hold(group.size)
        self._from = (torch.arange(tokens.numel()).view(tokens.shape)[:, -scored - 1 : -1]).flatten()
        self._targets = tokens[:, -scored:].flatten()

    @property
    def halves(self) -> list[str]:
        """The groups (`3.kv`, `3.ffn`) in the order of the forward pass."""
        return list(self._body.halves)

    @torch.inference_mode()
    def embedded(self) -> Tensor:
        """Return the states before the first block, `[windows * length, hidden_size]`."""
        return self._body.embed(self._tokens.flatten())

    @torch.inference_mode()
    def through(self, group: str, units: int, states: Tensor) -> Tensor:
        """Return the states after one sub-block with `units` units."""
        if not units:
            return states
        sub_block = self._body.halves[group]
        sub_block.show(units)
        return sub_block(states, self._windows)

    @torch.inference_mode()
    def loss(self, states: Tensor) -> float:
        """Return the mean negative log likelihood of the scored tokens, in nats.

        states: after the last sub-block, `[windows * length, hidden_size]`.
        """
        total = 0.0
        for places, targets in zip(
            self._from.split(_POSITIONS), self._targets.split(_POSITIONS), strict=True
        ):
            total += float(cross_entropy(self._body.logits(states[places]), targets, reduction="sum"))
        return total / len(self._targets)
