"""Write a model without its zeros: a folder of masks and non-zeros, reloaded and compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from secateur.calibrate.self_sampled import probe
from secateur.core.progress import Progress, Silent
from secateur.model.formats.quantized_source import CONFIG_KEY, CodedSource
from secateur.model.formats.sparse_folder import put_together, sparse_config, sparse_tensors
from secateur.model.handle import ModelHandle, open_model
from secateur.model.written.block_writer import BlockWriter
from secateur.model.written.checkpoint import writing
from secateur.model.written.folder_writer import FolderWriter
from secateur.model.written.reload_check import accept, reloaded_difference
from secateur.pipeline.export.formats import ExportResult
from secateur.quantizers.rtn import nearest as rounded
from secateur.tensors.layer_stream import LiveBlock
from secateur_runtime.errors import UsageError, nearest
from secateur_runtime.kernels.bitmask import KINDS, Packed, kind_of, pack
from secateur_runtime.kernels.quantized import Codes, Grid, usual_grid

PREFIX = "sparse-"
DENSE = "dense"
TYPES = (*(PREFIX + kind for kind in KINDS), DENSE)
_BITS = {"int8": 8, "int4": 4}


@dataclass(frozen=True, slots=True)
class SparseExport:
    """What was written.

    weights: sparse weights. zeros: their share of zeros. bytes: of all weight files' tensors. sparse_bytes,
    dense_bytes: what the sparse weights take, and would take with their zeros in the same type.
    resumed_blocks: found finished.
    reload_difference: largest difference of the reloaded folder's last hidden states from those of the run,
    relative.
    """

    out: Path
    type: str
    weights: int
    zeros: float
    bytes: int
    sparse_bytes: int
    dense_bytes: int
    resumed_blocks: int
    reload_difference: float


def export_sparse(
    src: str,
    out: str | Path,
    *,
    kind: str,
    group: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> SparseExport:
    """Write the model `src` as the folder `out`, each weight of its blocks without its zeros.

    A killed run is continued.

    kind: `sparse-bf16`, or `sparse-int8` or `sparse-int4`, which round to nearest; a model that is quantized
    already keeps its quantized values. `dense` puts the zeros back: a folder for stock transformers, bfloat16
    or, from quantized values, float32, so that it is exact.
    group: inputs that share a scale; that of `usual_grid` unless given. Everything outside the blocks, norms
    and biases are stored as bfloat16, unless quantized values become dense.
    Raises UsageError for another type, for a model without zeros, for groups that do not fit; OutputError if
    `out` cannot be written; VerificationError if the reloaded folder does not compute what the run computed.
    """
    if kind not in TYPES:
        raise UsageError(f"unknown type {kind!r}{nearest(kind, TYPES)}; known: {', '.join(TYPES)}")
    model = open_model(src)
    progress = progress or Silent()
    grids = _grids(model, kind.removeprefix(PREFIX), group)
    job = {"model": model.digest, "type": kind, "group": group, "secateur": version("secateur")}
    with writing(Path(out), job, len(model.graph.blocks) + 1, overwrite=overwrite) as checkpoint:
        writer = FolderWriter(checkpoint, model, _stored_type(model, grids))
        tokens = probe(model)
        run = PackingPass(writer, grids, tokens)
        run.write_blocks("pack", range(len(run.stream)), progress)
        if grids and not run.zeros:
            raise UsageError(
                f"{model.source.ref} has no zeros, so it would only grow: prune it first, with --sparsity or"
                " --pattern"
            )
        writer.describe(_config(model, grids), {"type": kind})
        writer.carry_plan()
        found = reloaded_difference(checkpoint.partial, tokens, run.states)
        accept(found)
        made = SparseExport(
            out=Path(out),
            type=kind,
            weights=len(grids),
            zeros=run.zeros / max(run.weights, 1),
            bytes=checkpoint.tensor_bytes,
            sparse_bytes=run.sparse,
            dense_bytes=run.dense,
            resumed_blocks=run.resumed,
            reload_difference=found,
        )
        _write_card(writer, made)
        checkpoint.publish()
    return made


def folder_result(done: SparseExport) -> ExportResult:
    """Return what a folder holds, as the result of a format."""
    facts: dict[str, Any] = {"type": done.type, "bytes": done.bytes}
    if done.weights:
        facts |= {
            "sparse_weights": done.weights,
            "sparsity": round(done.zeros, 5),
            "share_of_dense": round(done.sparse_bytes / done.dense_bytes, 4),
            "sparse_bytes": done.sparse_bytes,
            "dense_bytes": done.dense_bytes,
        }
    facts |= {"resumed_blocks": done.resumed_blocks, "reload_difference": done.reload_difference}
    figures = {"sparsity": done.zeros} if done.weights else {}
    return ExportResult(out=done.out, type=done.type, bytes=done.bytes, facts=facts, figures=figures)


def _stored_type(model: ModelHandle, grids: Mapping[str, Grid | None]) -> torch.dtype:
    """Return the type of all that is not packed: bfloat16, unless quantized values become dense."""
    exact = not grids and isinstance(model.source, CodedSource) and model.source.grids
    return torch.float32 if exact else torch.bfloat16


def _grids(model: ModelHandle, kind: str, group: int) -> dict[str, Grid | None]:
    """Return the grid of each weight that is stored without zeros; None for bfloat16."""
    names = {linear.tensor: linear.in_features for linear in model.graph.linears}
    if kind == DENSE:
        return {}
    if isinstance(model.source, CodedSource) and model.source.grids:
        held = {name: model.source.grids[name] for name in names if name in model.source.grids}
        odd = next((grid for grid in held.values() if kind_of(grid) != kind or not grid.symmetric), None)
        if odd is not None or group:
            raise UsageError(
                f"{model.source.ref} is quantized already{f' on the grid {odd}' if odd else ''}, and its"
                f" codes stay: {PREFIX}{kind} cannot hold it"
            )
        return dict(held)
    if kind not in _BITS:
        return dict.fromkeys(names)
    grids: dict[str, Grid | None] = {}
    for name, columns in names.items():
        grids[name] = grid = (
            Grid(bits=_BITS[kind], group=group) if group else usual_grid(_BITS[kind], columns)
        )
        grid.check(name, columns)
    return grids


class PackingPass(BlockWriter):
    """One pass over the blocks, each weight of `grids` packed.

    states: last hidden states `[windows, tokens, hidden_size]` of what was written so far.
    bytes, sparse, dense, zeros, weights: of the tensors, of the packed weights, of these with their zeros,
    and their counts.
    """

    def __init__(self, writer: FolderWriter, grids: Mapping[str, Grid | None], tokens: Tensor) -> None:
        super().__init__(writer, writer.model.stream(outside=writer.dtype))
        self.sparse = self.dense = self.zeros = self.weights = 0
        self._model = writer.model
        self._grids = grids
        source = self._model.source
        self.write_outside({name: source.read(name).to(writer.dtype) for name in self._model.graph.outside})
        (self.states,) = self.stream.embed([tokens])

    def made(self, live: LiveBlock, place: int) -> dict[str, Tensor]:
        """Pack the weights of a block, put what is stored in their place, and run it."""
        tensors: dict[str, Tensor] = {}
        for name in live.block.tensors:
            if name in self._grids:
                packed = pack(self._stored(name, live))
                tensors |= sparse_tensors(name, packed)
                self._take(name, packed, live)
            else:
                tensors[name] = live.weight(name).to(self.writer.dtype)
                live.weight(name).copy_(tensors[name])
        self.states = live(self.states)
        return tensors

    def restored(self, live: LiveBlock, place: int, tensors: Mapping[str, Tensor]) -> None:
        """Put what is stored into a block, and run it."""
        for name in live.block.tensors:
            if name in self._grids:
                rows, columns = self._model.graph.tensors[name].shape
                self._take(name, put_together(name, (rows, columns), self._grids[name], tensors), live)
            else:
                live.weight(name).copy_(tensors[name])
        self.states = live(self.states)

    def _stored(self, name: str, live: LiveBlock) -> Tensor | Codes:
        grid = self._grids[name]
        source = self._model.source
        if isinstance(source, CodedSource) and name in source.grids:
            return source.codes(name)
        weight = live.weight(name)
        return (
            weight.to(torch.bfloat16) if grid is None else rounded(weight, torch.ones(weight.shape[1]), grid)
        )

    def _take(self, name: str, packed: Packed, live: LiveBlock) -> None:
        live.weight(name).copy_(packed.dense())
        rows, columns = packed.shape
        each = 16 if packed.grid is None else (8 if packed.kind == "int8" else 4) + 16 / packed.grid.group
        self.sparse += packed.nbytes
        self.dense += int(rows * columns * each / 8)
        self.weights += rows * columns
        self.zeros += rows * columns - int(packed.counts.sum())


def _config(model: ModelHandle, grids: Mapping[str, Grid | None]) -> dict[str, Any]:
    config = dict(model.source.config)
    if grids:
        shapes = {name: model.graph.tensors[name].shape for name in grids}
        config[CONFIG_KEY] = sparse_config(
            {name: ((shapes[name][0], shapes[name][1]), grid) for name, grid in grids.items()}
        )
    return config


def _write_card(writer: FolderWriter, made: SparseExport) -> None:
    if made.type == DENSE:
        return
    before = writer.earlier_card().rstrip() or f"# {Path(writer.model.source.ref).name}, sparse"
    lines = [
        *(before, "", "## How it is stored", ""),
        (
            f"As `{made.type}`: {made.zeros:.1%} of the weights of its blocks are zero and are not stored;"
            f" those weights take {made.sparse_bytes:,} bytes"
        ),
        (
            f"instead of {made.dense_bytes:,}. Secateur opens the folder as it is; `secateur export --type"
            " dense` puts the zeros back for stock transformers."
        ),
    ]
    writer.write_card("\n".join(lines) + "\n")
