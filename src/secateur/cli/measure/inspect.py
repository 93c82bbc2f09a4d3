"""`secateur inspect`: what a model is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from secateur.cli.shared import options, printing

if TYPE_CHECKING:
    from secateur.model.handle import ModelHandle


def inspect(
    model: options.Model,
    tensors: Annotated[bool, typer.Option("--tensors", help="List every tensor with its zeros.")] = False,
    as_json: options.Json = False,
) -> None:
    """Show architecture, widths, groups, sizes and sparsity."""
    from secateur.model.handle import open_model

    handle = open_model(model)
    zeros = {name: int((handle.source.read(name) == 0).sum()) for name in handle.graph.tensors}
    if as_json:
        printing.result(_summary(handle, zeros) | {"tensors": _rows(handle, zeros)}, as_json=True)
        return
    printing.result(_summary(handle, zeros), as_json=False, title=model)
    printing.table(_blocks(handle), header=("block", "heads", "KV heads", "head_dim", "FFN", "groups"))
    if tensors:
        rows = [
            [row["tensor"], "x".join(map(str, row["shape"])), row["dtype"], f"{row['sparsity']:.4f}"]
            for row in _rows(handle, zeros)
        ]
        printing.table(rows, header=("tensor", "shape", "type", "sparsity"))


def _summary(handle: ModelHandle, zeros: dict[str, int]) -> dict[str, Any]:
    graph = handle.graph
    prunable = [linear.tensor for linear in graph.linears]
    weights = sum(graph.tensors[name].numel for name in prunable)
    return {
        "family": graph.family,
        "digest": handle.digest,
        "parameters": graph.parameters,
        "prunable_parameters": weights,
        "blocks": len(graph.blocks),
        "hidden_size": graph.hidden_size,
        "vocab_size": graph.vocab_size,
        "tied_embeddings": graph.tied,
        "bytes_as_bfloat16": 2 * graph.parameters,
        "sparsity_of_prunable": round(sum(zeros[name] for name in prunable) / weights, 5),
    }


def _rows(handle: ModelHandle, zeros: dict[str, int]) -> list[dict[str, Any]]:
    return [
        {
            "tensor": name,
            "shape": list(info.shape),
            "dtype": info.dtype,
            "sparsity": round(zeros[name] / info.numel, 5),
        }
        for name, info in handle.graph.tensors.items()
    ]


def _blocks(handle: ModelHandle) -> list[list[str]]:
    """One row for each run of equal blocks."""
    rows: list[list[str]] = []
    blocks = handle.graph.blocks
    start = 0
    for index in range(1, len(blocks) + 1):
        if index < len(blocks) and blocks[index].shape == blocks[start].shape:
            continue
        shape = blocks[start].shape
        last = index - 1
        groups = ", ".join(f"{group.size} {group.kind}" for group in blocks[start].groups)
        label = str(start) if start == last else f"{start}-{last}"
        rows.append(
            [
                label,
                str(shape.n_heads),
                str(shape.n_kv_heads),
                str(shape.head_dim),
                str(shape.intermediate_size),
                groups,
            ]
        )
        start = index
    return rows
