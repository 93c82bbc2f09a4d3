"""Open a model as an elastic one."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface

from secateur.adapt.weights import part_name, prepare
from secateur.core.graph import Block, Group
from secateur.core.ladder import Ladder
from secateur.model.build import build_without_weights
from secateur.model.families import EMBED, FAMILIES, HEAD
from secateur.model.opened import Opened
from secateur.model.reshape import Nothing, Same
from secateur.runtime.elastic import Body, Elastic
from secateur.runtime.elastic.attention import NAME, Seat, attend
from secateur.runtime.elastic.half import Half, silence_absent
from secateur.runtime.elastic.room import Room, WeightFile, whole_pages
from secateur.runtime.elastic.weights import Columns, Lookup, Prefix, Rows, Stored


def open_elastic(
    model: Opened, ladder: Ladder, weights: Path, *, level: int = 0, dtype: torch.dtype = torch.bfloat16, kv: torch.dtype = torch.float32
) -> Elastic:
    """Return the elastic model of a ladder, at a level.

    weights: the file it reads from, made first if it is not there; dtype: of stored matrices; kv: of keys and values.
    Raises LadderError if the ladder was made for another model or lacks the level, SourceError or OutputError as `prepare` does.
    """
    ladder.validate(model.graph, model.digest)
    ladder.at(level)
    return Elastic(build_body(model, prepare(model, ladder, weights, dtype), weights), ladder, level=level, kv=kv)


def build_body(model: Opened, stored: Mapping[str, Stored], weights: Path) -> Body:
    """Return a model that computes with prefixes of what is `stored` in a file, none of its units held yet."""
    return _Builder(model, stored, weights).body()


class _Builder:
    """Puts prefixes of stored weights where transformers has its linears."""

    def __init__(self, model: Opened, stored: Mapping[str, Stored], path: Path) -> None:
        self._graph, self._config, self._stored = model.graph, model.source.config, stored
        self._file = WeightFile(path)
        self._starts, at = dict[str, int](), 0
        for name, entry in stored.items():
            self._starts[name] = at
            at += whole_pages(entry.bytes)
        self._room = Room(at)
        self._model = build_without_weights(model.source.config)
        self._seat = Seat()

    def body(self) -> Body:
        """Build the model; nothing but what no level changes is read yet."""
        graph, decoder = self._graph, self._model.get_decoder()
        AttentionInterface.register(NAME, attend)
        self._model.config._attn_implementation = NAME
        halves = {}
        for block in graph.blocks:
            layer = decoder.layers[block.index]
            self._vectors(block, layer)
            for group in (group for group in block.groups if group.kind in ("kv", "ffn")):
                halves[group.name] = self._half(block, group, layer)
        scale = graph.hidden_size**0.5 if FAMILIES[graph.family].scaled_embeddings else 1.0
        table = self._prefix(EMBED, 1, graph.vocab_size)
        self._model.lm_head = Rows([(table if graph.tied else self._prefix(HEAD, 1, graph.vocab_size), None)])
        decoder.norm.weight = self._vector("model.norm.weight")
        sizes = [(block.shape.n_kv_heads, block.shape.head_dim) for block in graph.blocks]
        limit = int(self._config["max_position_embeddings"])
        embed, vocab_size = Lookup(table, scale), graph.vocab_size
        return Body(model=self._model, embed=embed, halves=halves, sizes=sizes, seat=self._seat, limit=limit, vocab_size=vocab_size)

    def _half(self, block: Block, group: Group, layer: Any) -> Half:
        prefixes = [self._prefix(part_name(group, place), part.block) for place, part in enumerate(group.slices)]
        *rows, output = zip(group.slices, prefixes, strict=True)
        modules: dict[str, list[tuple[Prefix, Prefix | None]]] = {}
        biases = {(part.tensor.removesuffix(".bias"), part.offset): prefix for part, prefix in rows if part.tensor.endswith(".bias")}
        for part, prefix in rows:
            if part.tensor.endswith(".weight"):
                name = part.tensor.removesuffix(".weight")
                modules.setdefault(name, []).append((prefix, biases.get((name, part.offset))))
        for name, parts in modules.items():
            _put(layer, name.removeprefix(block.prefix), Rows(parts))
        name = output[0].tensor.removesuffix(".weight")
        bias = self._vector(f"{name}.bias") if f"{name}.bias" in self._stored else None
        _put(layer, name.removeprefix(block.prefix), Columns(output[1], bias))
        attention = group.kind == "kv"
        if attention:
            layer.self_attn.config = copy.copy(layer.self_attn.config)
            layer.self_attn.seat = self._seat
            if bias is not None:
                silence_absent(layer.self_attn, self._seat)
        heads = block.shape.n_heads // block.shape.n_kv_heads if attention else 0
        return Half(layer, prefixes, self._stand_ins(attention=attention), heads)

    def _stand_ins(self, *, attention: bool) -> dict[str, nn.Module]:
        family = FAMILIES[self._graph.family]
        norms = family.attn_norms if attention else family.ffn_norms
        return {"self_attn" if attention else "mlp": Nothing(attention=attention), **{name: Same() for name in norms}}

    def _vectors(self, block: Block, layer: Any) -> None:
        """Read the norms of a block."""
        for name in block.tensors:
            module, _, leaf = name.removeprefix(block.prefix).rpartition(".")
            if name in self._stored and leaf == "weight":
                layer.get_submodule(module).weight = self._vector(name)

    def _prefix(self, name: str, block: int, units: int = 0) -> Prefix:
        prefix = Prefix(self._room, self._starts[name], self._file, self._stored[name], block)
        prefix.hold(units)
        return prefix

    def _vector(self, name: str) -> nn.Parameter:
        """Return a tensor that no level changes."""
        return nn.Parameter(self._prefix(name, 1, self._stored[name].shape[0]).held, requires_grad=False)


def _put(layer: nn.Module, path: str, module: nn.Module) -> None:
    owner, _, leaf = path.rpartition(".")
    setattr(layer.get_submodule(owner), leaf, module)
