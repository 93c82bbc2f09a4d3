"""The file an elastic model reads: every weight once, its units in the order of a ladder, those that stay longest first."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from secateur.core.codes import in_steps, usual_grid
from secateur.core.errors import SourceError
from secateur.core.files import written_whole
from secateur.core.graph import Graph, Group, Slice
from secateur.core.ladder import Ladder
from secateur.model.opened import Opened
from secateur.model.safetensors_header import read_safetensors
from secateur.model.source import read_as
from secateur.runtime.elastic.weights import Stored
from secateur.sparse.weights import as_bytes

SCALES = ".scales"
"""What the name of codes of 8 bits has after it where their scales are stored."""
_CODES = {torch.bfloat16: "BF16", torch.float32: "F32", torch.uint8: "U8", torch.float16: "F16"}
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

    Matrices are stored in `dtype`, those in int8 as codes and 128 with their scales apart, and vectors in float32. Raises OutputError if the
    file cannot be written, SourceError if it is damaged or was made from something else.
    """
    identity = {"model": model.digest, "order": _digest(ladder), "dtype": "I8" if dtype is torch.int8 else _CODES[dtype]}
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
    found: Shapes = {}
    for name in (name for name in graph.tensors if name in graph.outside):
        found |= _laid_out(name, graph.tensors[name].shape, dtype)
    for block in graph.blocks:
        groups = [group for group in block.groups if group.kind in ("kv", "ffn")]
        for group in groups:
            for place, part in enumerate(group.slices):
                shape = graph.tensors[part.tensor].shape
                rest = shape[1 - part.dim :][:1] if len(shape) > 1 else ()
                found |= _laid_out(part_name(group, place), (group.size * part.block, *rest), dtype, part.dim)
        sliced = {part.tensor for group in groups for part in group.slices}
        found |= {name: (torch.float32, graph.tensors[name].shape) for name in block.tensors if name not in sliced}
    return found


def _laid_out(name: str, shape: tuple[int, ...], dtype: torch.dtype, dim: int = 0) -> Shapes:
    """Return what is stored of a weight whose units are rows, or where dim is 1 columns that are stored as rows."""
    if len(shape) == 1:
        return {name: (torch.float32, shape)}
    if dtype is not torch.int8:
        return {name: (dtype, shape)}
    groups = shape[1 - dim] // usual_grid(8, shape[1 - dim]).group
    return {name: (torch.uint8, shape), name + SCALES: (torch.float16, (groups, shape[1]) if dim else (shape[0], groups))}


def _write(model: Opened, ladder: Ladder, path: Path, dtype: torch.dtype, identity: Mapping[str, str]) -> None:
    header, at, shapes = dict[str, object](__metadata__=dict(identity)), 0, _shapes(model.graph, dtype)
    for name, (kind, shape) in shapes.items():
        size = torch.Size(shape).numel() * kind.itemsize
        header[name] = {"dtype": _CODES[kind], "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    with written_whole(path) as scratch, scratch.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, tensor in _tensors(model, ladder, shapes):
            kind, shape = shapes[name]
            file.write(tensor.reshape(shape).to(kind).contiguous().view(torch.uint8).numpy().data)


def _tensors(model: Opened, ladder: Ladder, shapes: Shapes) -> Iterator[tuple[str, Tensor]]:
    """Yield what `_shapes` lists, in the same order."""
    graph = model.graph
    for name in (name for name in graph.tensors if name in graph.outside):
        if name + SCALES in shapes:
            yield from zip((name, name + SCALES), map(torch.cat, zip(*map(_codes, model.source.pieces(name)), strict=True)), strict=True)
        else:
            yield name, read_as(model.source, name, shapes[name][0])
    for block in graph.blocks:
        weights = {name: read_as(model.source, name, torch.float32) for name in block.tensors}
        groups = [group for group in block.groups if group.kind in ("kv", "ffn")]
        for group in groups:
            for place, part in enumerate(group.slices):
                name, ordered = part_name(group, place), _ordered(weights[part.tensor], part, ladder.order[group.name])
                if name + SCALES in shapes:
                    yield from zip((name, name + SCALES), _codes(ordered.reshape(shapes[name][1]), part.dim), strict=True)
                else:
                    yield name, ordered
        sliced = {part.tensor for group in groups for part in group.slices}
        yield from ((name, weights[name]) for name in block.tensors if name not in sliced)


def _codes(weight: Tensor, dim: int = 0) -> tuple[Tensor, Tensor]:
    """Return codes and 128, and their scales, of a weight whose units are rows, or where dim is 1 were columns; laid out as it is."""
    weight = weight.float().T.contiguous() if dim else weight.float()
    found = as_bytes(in_steps(weight, usual_grid(8, weight.shape[1])))
    return (found.values.T, found.scales.T) if dim else (found.values, found.scales)


def _ordered(weight: Tensor, part: Slice, order: tuple[int, ...]) -> Tensor:
    """Return what the units own, unit after unit, those that stay longest first: as rows, also where they own columns."""
    rows = weight if part.dim == 0 else weight.T
    return rows[part.offset : part.offset + len(order) * part.block].reshape(len(order), part.block, *rows.shape[1:])[list(order)]
