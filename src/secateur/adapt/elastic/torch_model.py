"""Open a model as an elastic one that runs in torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import gelu, relu, silu

from secateur.adapt.elastic.weights import part_name, prepare
from secateur.core.graph import Block, Group
from secateur.core.ladder_plan import check_ladder
from secateur.model.families import EMBED, FINAL_NORM, HEAD
from secateur.model.handle import ModelHandle
from secateur.model.rotary import frequencies, rotary_kind, sight, turns
from secateur.runtime.elastic.attention import Sight
from secateur.runtime.elastic.model import Elastic, ElasticParts
from secateur.runtime.elastic.sub_block import Attention, FeedForward, Norm, Parts, SubBlock
from secateur_runtime.decoder.prefix_weights import Columns, FileSpan, Lookup, Prefix, Rows
from secateur_runtime.decoder.releasable_memory import ReleasableMemory, WeightFile, whole_pages
from secateur_runtime.errors import UnsupportedModelError
from secateur_runtime.ladder import Ladder

_ACTS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "silu": silu,
    "swish": silu,
    "gelu": gelu,
    "gelu_pytorch_tanh": partial(gelu, approximate="tanh"),
    "relu": relu,
}


def open_elastic(
    model: ModelHandle,
    ladder: Ladder,
    weights: Path,
    *,
    level: int = 0,
    dtype: torch.dtype = torch.bfloat16,
    kv: torch.dtype = torch.float32,
) -> Elastic:
    """Return the elastic model of a ladder, at a level.

    weights: the file it reads from, written first if it does not exist. level: level to start at. dtype: type
    of stored matrices. kv: type of keys and values.
    Raises LadderError if the ladder was made for another model or lacks the level, SourceError or OutputError
    as `prepare` does, UnsupportedModelError for an activation or a rotary scaling that is not known.
    """
    check_ladder(ladder, model.graph, model.digest)
    ladder.at(level)
    return Elastic(
        build_body(model, prepare(model, ladder, weights, dtype), weights), ladder, level=level, kv=kv
    )


def build_body(model: ModelHandle, stored: Mapping[str, FileSpan], weights: Path) -> ElasticParts:
    """Return a model that reads its units from the file `weights`; no unit is in memory yet.

    stored: where each tensor lies in the file.
    """
    return _TorchBuilder(model, stored, weights).body()


class _TorchBuilder:
    """Lays stored weights out in one piece of memory, and builds sub-blocks from them."""

    def __init__(self, model: ModelHandle, stored: Mapping[str, FileSpan], path: Path) -> None:
        self._graph = model.graph
        self._stored = stored
        self._config = model.config
        self._family = model.family
        self._file = WeightFile(path)
        self._starts = dict[str, int]()
        at = 0
        for name, entry in stored.items():
            self._starts[name] = at
            at += whole_pages(entry.bytes)
        self._memory = ReleasableMemory(at)

    def body(self) -> ElasticParts:
        """Build the model; only the tensors that no level changes are read."""
        graph = self._graph
        config = self._config
        table = self._prefix(EMBED, 1, graph.vocab_size)
        kinds = {rotary_kind(config, block.index) for block in graph.blocks}
        return ElasticParts(
            embed=Lookup(table, graph.hidden_size**0.5 if self._family.scaled_embeddings else 1.0),
            halves=dict(self._sub_blocks()),
            norm=self._norm(FINAL_NORM),
            head=Rows(table if graph.tied else self._prefix(HEAD, 1, graph.vocab_size)),
            softcap=getattr(config, "final_logit_softcapping", None),
            rotary={kind: frequencies(config, kind) for kind in sorted(kinds)},
            sizes=[(block.shape.n_kv_heads, block.shape.head_dim) for block in graph.blocks],
            limit=int(config.max_position_embeddings),
            vocab_size=graph.vocab_size,
        )

    def _sub_blocks(self) -> list[tuple[str, SubBlock]]:
        found: list[tuple[str, SubBlock]] = []
        for block in self._graph.blocks:
            groups = {group.kind: group for group in block.groups}
            if "kv" in groups:
                found.append((groups["kv"].name, self._attention(block, groups["kv"])))
            if "ffn" in groups:
                found.append(
                    (
                        groups["ffn"].name,
                        FeedForward(self._parts(block, groups["ffn"], self._family.ffn_norms), self._act()),
                    )
                )
        return found

    def _attention(self, block: Block, group: Group) -> SubBlock:
        config = self._config
        width = block.shape.head_dim
        how = Sight(
            head_dim=width,
            scale=(getattr(config, "query_pre_attn_scalar", None) or width) ** -0.5,
            window=sight(config, block.index),
            softcap=getattr(config, "attn_logit_softcapping", None),
            rotary=rotary_kind(config, block.index) if turns(config, block.index) else None,
        )
        norms = [self._norm(f"{block.prefix}{name}.weight") for name in self._family.head_norms]
        return Attention(self._parts(block, group, self._family.attn_norms), block.index, how, norms)

    def _parts(self, block: Block, group: Group, norms: Sequence[str]) -> Parts:
        held = [self._prefix(part_name(group, place), part.block) for place, part in enumerate(group.slices)]
        *rows, (output, columns) = zip(group.slices, held, strict=True)
        biases = {
            (part.tensor.removesuffix(".bias"), part.offset): prefix
            for part, prefix in rows
            if part.tensor.endswith(".bias")
        }
        weights = [
            (part.tensor.removesuffix(".weight"), part.offset, prefix)
            for part, prefix in rows
            if part.tensor.endswith(".weight")
        ]
        bias = f"{output.tensor.removesuffix('.weight')}.bias"
        return Parts(
            held=held,
            norms=[self._norm(f"{block.prefix}{name}.weight") for name in norms],
            rows=[Rows(prefix, biases.get((name, offset))) for name, offset, prefix in weights],
            columns=Columns(columns, self._vector(bias) if bias in self._stored else None),
        )

    def _act(self) -> Callable[[Tensor], Tensor]:
        name = getattr(self._config, "hidden_activation", None) or self._config.hidden_act
        if name not in _ACTS:
            raise UnsupportedModelError(
                f"not supported because its activation is {name!r}; an elastic model has {', '.join(_ACTS)}"
            )
        return _ACTS[name]

    def _norm(self, name: str) -> Norm:
        weight = self._vector(name)
        return Norm(
            weight + self._family.norm_offset if self._family.norm_offset else weight,
            self._config.rms_norm_eps,
        )

    def _prefix(self, name: str, block: int, units: int = 0) -> Prefix:
        prefix = Prefix(self._memory, self._starts[name], self._file, self._stored[name], block)
        prefix.hold(units)
        return prefix

    def _vector(self, name: str) -> Tensor:
        """Return a tensor that no level changes."""
        return self._prefix(name, 1, self._stored[name].shape[0]).held
