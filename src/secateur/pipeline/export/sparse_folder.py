"""Write a model without its zeros: a folder of masks and non-zeros, reloaded and compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from secateur.calibrate.self_sampled import probe
from secateur.core.graph import Block
from secateur.core.progress import Progress, Silent
from secateur.model.formats.quantized_source import CONFIG_KEY, CodedSource
from secateur.model.formats.sparse_folder import put_together, sparse_config, sparse_tensors
from secateur.model.handle import ModelHandle, open_model
from secateur.model.written.checkpoint import Checkpoint, writing
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
        run = _ExportRun(model, grids, checkpoint)
        tokens = probe(model)
        meant = run.write(tokens, progress)
        run.describe(kind)
        found = reloaded_difference(checkpoint.partial, tokens, meant)
        accept(found)
        made = run.made(Path(out), kind, found)
        _write_card(run.writer, made)
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


class _ExportRun:
    """One pass over the blocks."""

    def __init__(self, model: ModelHandle, grids: Mapping[str, Grid | None], checkpoint: Checkpoint) -> None:
        self._model = model
        self._grids = grids
        self._checkpoint = checkpoint
        self._resumed = max(checkpoint.finished() - 1, 0)
        self._dtype = (
            torch.float32
            if not grids and isinstance(model.source, CodedSource) and model.source.grids
            else torch.bfloat16
        )
        self.writer = FolderWriter(checkpoint, model, self._dtype)
        self._bytes = self._sparse = self._dense = self._zeros = self._count = 0

    def write(self, tokens: Tensor, progress: Progress) -> Tensor:
        """Write every shard; return the last hidden states of what was written.

        tokens: ids `[windows, tokens]`; the states are `[windows, tokens, hidden_size]`.
        """
        outside = {name: self._model.source.read(name).to(self._dtype) for name in self._model.graph.outside}
        if self._checkpoint.finished() == 0:
            self._checkpoint.write(0, outside)
        self._enter(0, outside)
        stream = self._model.stream(outside=self._dtype)
        (states,) = stream.embed([tokens])
        progress.start("pack", len(stream), self._resumed)
        for block in self._model.graph.blocks:
            with stream.open(block.index) as live:
                states = self._one(block, live)(states)
            progress.step(f"block {block.index}")
        if self._grids and not self._zeros:
            raise UsageError(
                f"{self._model.source.ref} has no zeros, so it would only grow: prune it first, with"
                " --sparsity or --pattern"
            )
        return states

    def _one(self, block: Block, live: LiveBlock) -> LiveBlock:
        """Write a block, or read back the one a killed run wrote, and put what is stored in its place."""
        shard = block.index + 1
        finished = block.index < self._resumed
        tensors = load_file(self._checkpoint.shard(shard)) if finished else {}
        for name in block.tensors:
            if name not in self._grids:
                tensors[name] = tensors[name] if finished else live.weight(name).to(self._dtype)
                live.weight(name).copy_(tensors[name])
                continue
            shape = self._model.graph.tensors[name].shape
            packed = (
                put_together(name, (shape[0], shape[1]), self._grids[name], tensors)
                if finished
                else pack(self._stored(name, live))
            )
            if not finished:
                tensors |= sparse_tensors(name, packed)
            live.weight(name).copy_(packed.dense())
            self._note(packed)
        if not finished:
            self._checkpoint.write(shard, tensors)
        self._enter(shard, tensors)
        return live

    def _stored(self, name: str, live: LiveBlock) -> Tensor | Codes:
        grid = self._grids[name]
        source = self._model.source
        if isinstance(source, CodedSource) and name in source.grids:
            return source.codes(name)
        weight = live.weight(name)
        return (
            weight.to(torch.bfloat16) if grid is None else rounded(weight, torch.ones(weight.shape[1]), grid)
        )

    def _note(self, packed: Packed) -> None:
        rows, columns = packed.shape
        each = 16 if packed.grid is None else (8 if packed.kind == "int8" else 4) + 16 / packed.grid.group
        self._sparse += packed.nbytes
        self._dense += int(rows * columns * each / 8)
        self._count += rows * columns
        self._zeros += rows * columns - int(packed.counts.sum())

    def _enter(self, shard: int, tensors: Mapping[str, Tensor]) -> None:
        self.writer.enter(shard, tensors)
        self._bytes += sum(tensor.nbytes for tensor in tensors.values())

    def describe(self, kind: str) -> None:
        """Write everything in the folder that is not weights."""
        graph = self._model.graph
        shapes = {name: (graph.tensors[name].shape[0], graph.tensors[name].shape[1]) for name in self._grids}
        config = dict(self._model.source.config)
        if self._grids:
            config[CONFIG_KEY] = sparse_config(
                {name: (shapes[name], grid) for name, grid in self._grids.items()}
            )
        self.writer.describe(config, {"type": kind})
        self.writer.carry_plan()

    def made(self, out: Path, kind: str, found: float) -> SparseExport:
        """Return what the run made; `found` is how far the reloaded folder is from it."""
        share = self._zeros / max(self._count, 1)
        return SparseExport(
            out, kind, len(self._grids), share, self._bytes, self._sparse, self._dense, self._resumed, found
        )


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
