"""Run a text through a model half by half, each as wide as asked, and say how well what comes out predicts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from secateur.core.graph import Graph
from secateur.runtime.elastic import Body
from secateur.runtime.elastic.attention import looked, sight

_POSITIONS = 128


class _Windows:
    """Attention within windows that lie one after another (see `runtime.elastic.attention.Attending`)."""

    def __init__(self, count: int, length: int) -> None:
        self._count, self._length = count, length

    def update(self, keys: Tensor, values: Tensor, _block: int, *_more: Any) -> tuple[Tensor, Tensor]:
        return keys, values

    def attend(self, _block: int, query: Tensor, keys: Tensor, values: Tensor, scale: float, window: int | None, softcap: float | None) -> Tensor:
        split = (self._count, self._length)
        asked, known, held = (part.unflatten(1, split).transpose(0, 1) for part in (query, keys, values))
        mask = sight(0, 0, self._length, window).repeat(len(query) // len(keys), 1)
        found = looked(asked.reshape(self._count, len(keys), -1, query.shape[2]), known, held, mask, scale, softcap)
        return found.reshape(self._count, len(query), self._length, -1).transpose(1, 2).flatten(0, 1)

    def absent(self, _block: int) -> None:
        return None


class Passing:
    """Windows of text before, between and after the halves of a model, all of whose units are held.

    tokens: `[windows, length]`; scored: how many of each window, the last ones, are predicted.
    """

    def __init__(self, body: Body, graph: Graph, tokens: Tensor, scored: int) -> None:
        self._body, self._graph, self._tokens = body, graph, tokens
        self._layers = list(body.model.get_decoder().layers)
        for group in (group for block in graph.blocks for group in block.groups if group.name in body.halves):
            body.halves[group.name].hold(group.size)
            body.halves[group.name].show(0)
        body.seat.step = _Windows(*tokens.shape)
        self._positions = torch.arange(tokens.shape[1]).repeat(len(tokens))[None]
        self._from = (torch.arange(tokens.numel()).view(tokens.shape)[:, -scored - 1 : -1]).flatten()
        self._meant = tokens[:, -scored:].flatten()
        self._arguments = self._recorded()

    @property
    def halves(self) -> list[str]:
        """The groups (`3.kv`, `3.ffn`) in the order in which states pass them."""
        names = (f"{block.index}.{kind}" for block in self._graph.blocks for kind in ("kv", "ffn"))
        return [name for name in names if name in self._body.halves]

    @torch.inference_mode()
    def embedded(self) -> Tensor:
        """Return the states before the first block, `[1, windows * length, hidden_size]`."""
        states: Tensor = self._body.embed(self._tokens.flatten()[None])
        return states

    @torch.inference_mode()
    def through(self, group: str, units: int, states: Tensor) -> Tensor:
        """Return the states after one half that has so many units."""
        if not units:
            return states
        half, block = self._body.halves[group], int(group.partition(".")[0])
        half.show(units)
        output = self._layers[block](states, **self._arguments[block])
        half.show(0)
        after: Tensor = output[0] if isinstance(output, tuple) else output
        return after

    @torch.inference_mode()
    def loss(self, states: Tensor) -> float:
        """Return the mean negative log likelihood of the scored tokens, in nats, from the states after the last block."""
        total = 0.0
        with self._instead(lambda _index, given, _arguments: given):
            for places, meant in zip(self._from.split(_POSITIONS), self._meant.split(_POSITIONS), strict=True):
                part = states[:, places]
                logits = self._body.model(inputs_embeds=part, position_ids=self._positions[:, : len(places)], use_cache=False).logits[0]
                total += float(cross_entropy(logits, meant, reduction="sum"))
        return total / len(self._meant)

    @torch.inference_mode()
    def _recorded(self) -> list[dict[str, Any]]:
        """Return what transformers gives each layer beside the states."""
        calls: list[dict[str, Any]] = []

        def record(_index: int, states: Tensor, arguments: dict[str, Any]) -> Tensor:
            calls.append(arguments | {"past_key_values": self._body.seat.step})
            return states

        with self._instead(record):
            self._body.model.get_decoder()(inputs_embeds=self.embedded(), position_ids=self._positions, use_cache=False)
        return calls

    @contextmanager
    def _instead(self, see: Callable[[int, Tensor, dict[str, Any]], Tensor]) -> Iterator[None]:
        for index, layer in enumerate(self._layers):
            layer.forward = lambda states, index=index, **arguments: see(index, states, arguments)
        try:
            yield
        finally:
            for layer in self._layers:
                del layer.forward
