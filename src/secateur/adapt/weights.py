"""The file an elastic model reads: every weight once, its units in the order of a ladder, those that stay longest first."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from secateur.core.errors import SourceError
from secateur.core.files import written_whole
from secateur.core.graph import Graph, Group, Slice
from secateur.core.ladder import Ladder
from secateur.model.opened import Opened
from secateur.model.safetensors_header import read_safetensors
from secateur.model.source import read_as
from secateur.runtime.elastic.weights import Stored

_CODES = {torch.bfloat16: "BF16", torch.float32: "F32"}
_TYPES = {code: dtype for dtype, code in _CODES.items()}
Shapes = dict[str, tuple[torch.dtype, tuple[int, ...]]]


def part_name(group: Group, place: int) -> str:
    """Return the name under which the slice at `place` of a group is stored."""
    return f"{group.name}/{place}"


def elastic_groups(graph: Graph) -> list[Group]:
    """Return the groups whose units come and go."""
    return [group for block in graph.blocks for group in block.groups if group.kind in ("kv", "ffn")]


def prepare(model: Opened, ladder: Ladder, path: Path, dtype: torch.dtype) -> dict[str, Stored]:
    """Return where each weight lies in `path`, which is made first if it is not there; one block is in memory at a time.

    Matrices are stored in `dtype`, vectors in float32. Raises OutputError if the file cannot be written, SourceError if it
    is damaged or was made from something else.
    """
    identity = {"model": model.digest, "order": _digest(ladder), "dtype": _CODES[dtype]}
    if not path.exists():
        _write(model, ladder, path, dtype, identity)
    try:
        with safe_open(path, "pt") as file:
            made_from = file.metadata()
    except (SafetensorError, OSError) as error:
        raise SourceError(f"{path} is damaged or cut short: {error}; delete it, it is made again") from None
    if made_from != identity:
        raise SourceError(f"{path} was made from another model, ladder or type: delete it, it is made again")
    found = read_safetensors(path)
    return {name: Stored(stored.offset, stored.shape, _TYPES[stored.dtype]) for name, stored in found.items()}


def _digest(ladder: Ladder) -> str:
    return "sha256:" + hashlib.sha256(json.dumps(dict(ladder.order), sort_keys=True).encode()).hexdigest()


def _shapes(graph: Graph, dtype: torch.dtype) -> Shapes:
    """Return type and shape of everything in the file, in the order in which it is written."""
    found: Shapes = {name: (dtype if len(info.shape) > 1 else torch.float32, info.shape) for name, info in graph.tensors.items() if name in graph.outside}
    for block in graph.blocks:
        groups = [group for group in block.groups if group.kind in ("kv", "ffn")]
        for group in groups:
            for place, part in enumerate(group.slices):
                shape = graph.tensors[part.tensor].shape
                rest = shape[1 - part.dim :][:1] if len(shape) > 1 else ()
                found[part_name(group, place)] = (dtype if rest else torch.float32, (group.size * part.block, *rest))
        sliced = {part.tensor for group in groups for part in group.slices}
        found |= {name: (torch.float32, graph.tensors[name].shape) for name in block.tensors if name not in sliced}
    return found


def _write(model: Opened, ladder: Ladder, path: Path, dtype: torch.dtype, identity: Mapping[str, str]) -> None:
    header, at, shapes = dict[str, object](__metadata__=dict(identity)), 0, _shapes(model.graph, dtype)
    for name, (kind, shape) in shapes.items():
        size = torch.Size(shape).numel() * kind.itemsize
        header[name] = {"dtype": _CODES[kind], "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    with written_whole(path) as scratch, scratch.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, tensor in _tensors(model, ladder, dtype):
            kind, shape = shapes[name]
            file.write(tensor.reshape(shape).to(kind).contiguous().view(torch.uint8).numpy().data)


def _tensors(model: Opened, ladder: Ladder, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """Yield what `_shapes` lists, in the same order."""
    graph = model.graph
    for name in (name for name in graph.tensors if name in graph.outside):
        yield name, read_as(model.source, name, dtype if len(graph.tensors[name].shape) > 1 else torch.float32)
    for block in graph.blocks:
        weights = {name: read_as(model.source, name, torch.float32) for name in block.tensors}
        groups = [group for group in block.groups if group.kind in ("kv", "ffn")]
        for group in groups:
            for place, part in enumerate(group.slices):
                yield part_name(group, place), _ordered(weights[part.tensor], part, ladder.order[group.name])
        sliced = {part.tensor for group in groups for part in group.slices}
        yield from ((name, weights[name]) for name in block.tensors if name not in sliced)


def _ordered(weight: Tensor, part: Slice, order: tuple[int, ...]) -> Tensor:
    """Return what the units own, unit after unit, those that stay longest first: as rows, also where they own columns."""
    rows = weight if part.dim == 0 else weight.T
    return rows[part.offset : part.offset + len(order) * part.block].reshape(len(order), part.block, *rows.shape[1:])[list(order)]
