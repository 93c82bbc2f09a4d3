"""The weight file of an elastic model.

It holds every weight once, its units in the order of a ladder, those retained longest first.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from secateur.adapt.elastic.quantized_layout import INT4, Coded
from secateur.core.graph import Graph, Group, Slice
from secateur.model.formats.open_source import read_as
from secateur.model.formats.safetensors_header import read_safetensors
from secateur.model.handle import ModelHandle
from secateur_runtime.decoder.prefix_weights import FileSpan
from secateur_runtime.errors import SourceError
from secateur_runtime.files import written_whole
from secateur_runtime.ladder import Ladder

SCALES = ".scales"
"""Suffix of the name under which the scales of codes are stored."""
_CODES = {
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.uint8: "U8",
    torch.float16: "F16",
    torch.int8: "I8",
    INT4: "I4",
}
_TYPES = {code: dtype for dtype, code in _CODES.items()}
Shapes = dict[str, tuple[torch.dtype, tuple[int, ...]]]


def part_name(group: Group, place: int) -> str:
    """Return the name under which the slice at `place` of a group is stored."""
    return f"{group.name}/{place}"


def elastic_groups(graph: Graph) -> list[Group]:
    """Return the groups whose units can be removed and restored."""
    return [group for block in graph.blocks for group in block.groups if group.kind in ("kv", "ffn")]


def prepare(model: ModelHandle, ladder: Ladder, path: Path, dtype: torch.dtype) -> dict[str, FileSpan]:
    """Return where each weight lies in `path`, which is written first if it does not exist.

    Writing holds one block in memory at a time. Matrices are stored in `dtype` (int8 and int4: as codes with
    separate scales), vectors in float32.
    Raises OutputError if the file cannot be written, SourceError if it is damaged or was made from another
    model, ladder or type.
    """
    identity = {"model": model.digest, "order": _digest(ladder), "dtype": _CODES[dtype]}
    if not path.exists():
        _write(model, ladder, path, dtype, identity)
    try:
        with safe_open(path, "pt") as file:
            made_from = file.metadata()
    except (SafetensorError, OSError) as error:
        raise SourceError(
            f"{path} is damaged or cut short: {error}; delete it, and it is written again"
        ) from None
    if made_from != identity:
        raise SourceError(
            f"{path} was made from another model, ladder or type: delete it, and it is written again"
        )
    found = read_safetensors(path)
    return {
        name: FileSpan(stored.offset, stored.shape, _TYPES[stored.dtype]) for name, stored in found.items()
    }


def _digest(ladder: Ladder) -> str:
    return "sha256:" + hashlib.sha256(json.dumps(dict(ladder.order), sort_keys=True).encode()).hexdigest()


def _shapes(graph: Graph, dtype: torch.dtype) -> Shapes:
    """Return type and shape of every tensor of the file, in the order in which they are written."""
    found: Shapes = {}
    for name in (name for name in graph.tensors if name in graph.outside):
        found |= _laid_out(name, graph.tensors[name].shape, dtype, 0, outside=True)
    for block in graph.blocks:
        groups = [group for group in block.groups if group.kind in ("kv", "ffn")]
        for group in groups:
            for place, part in enumerate(group.slices):
                shape = graph.tensors[part.tensor].shape
                rest = shape[1 - part.dim :][:1] if len(shape) > 1 else ()
                found |= _laid_out(part_name(group, place), (group.size * part.block, *rest), dtype, part.dim)
        sliced = {part.tensor for group in groups for part in group.slices}
        found |= {
            name: (torch.float32, graph.tensors[name].shape) for name in block.tensors if name not in sliced
        }
    return found


def _laid_out(
    name: str, shape: tuple[int, ...], dtype: torch.dtype, dim: int, *, outside: bool = False
) -> Shapes:
    """Return type and shape of the tensors stored for one weight.

    dim: 0 if units are rows, 1 if they are columns; these are stored as rows. outside: whether the weight
    belongs to no block.
    """
    if len(shape) == 1:
        return {name: (torch.float32, shape)}
    coded = Coded.of(dtype, shape[1 - dim], outside=outside)
    if coded is None:
        return {name: (dtype, shape)}
    codes, scales = coded.shapes(shape[dim], dim)
    return {name: (torch.uint8, codes), name + SCALES: (torch.float16, scales)}


def _write(
    model: ModelHandle, ladder: Ladder, path: Path, dtype: torch.dtype, identity: Mapping[str, str]
) -> None:
    header = dict[str, object](__metadata__=dict(identity))
    at = 0
    shapes = _shapes(model.graph, dtype)
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


def _tensors(model: ModelHandle, ladder: Ladder, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors that `_shapes` lists, in the same order."""
    graph = model.graph
    for name in (name for name in graph.tensors if name in graph.outside):
        shape = graph.tensors[name].shape
        coded = Coded.of(dtype, shape[1], outside=True) if len(shape) > 1 else None
        if coded:
            parts = [coded.arrays(piece, 0) for piece in model.source.pieces(name)]
            yield from zip((name, name + SCALES), map(torch.cat, zip(*parts, strict=True)), strict=True)
        else:
            yield name, read_as(model.source, name, dtype if len(shape) > 1 else torch.float32)
    for block in graph.blocks:
        weights = {name: read_as(model.source, name, torch.float32) for name in block.tensors}
        groups = [group for group in block.groups if group.kind in ("kv", "ffn")]
        for group in groups:
            for place, part in enumerate(group.slices):
                yield from _unit_after_unit(
                    part_name(group, place), weights[part.tensor], part, ladder.order[group.name], dtype
                )
        sliced = {part.tensor for group in groups for part in group.slices}
        yield from ((name, weights[name]) for name in block.tensors if name not in sliced)


def _unit_after_unit(
    name: str, weight: Tensor, part: Slice, order: tuple[int, ...], dtype: torch.dtype
) -> Iterator[tuple[str, Tensor]]:
    ordered = _ordered(weight, part, order).flatten(0, 1)
    coded = Coded.of(dtype, ordered.shape[1 - part.dim], outside=False) if ordered.dim() > 1 else None
    yield from zip(
        (name, name + SCALES), coded.arrays(ordered, part.dim) if coded else (ordered,), strict=False
    )


def _ordered(weight: Tensor, part: Slice, order: tuple[int, ...]) -> Tensor:
    """Return the rows of each unit, `[units, block, ...]`, those retained longest first.

    Units that own columns are transposed to rows.
    """
    rows = weight if part.dim == 0 else weight.T
    return rows[part.offset : part.offset + len(order) * part.block].reshape(
        len(order), part.block, *rows.shape[1:]
    )[list(order)]
