"""Quantize a model block by block into a packed folder for stock transformers, reloaded and compared."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from secateur.allocate.protect import protected
from secateur.calibrate.calibration import Calibration, calibration_tokens, provenance
from secateur.calibrate.input_statistics import HiddenStates, collect
from secateur.calibrate.self_sampled import probe
from secateur.core.graph import Graph
from secateur.core.plan import Plan
from secateur.core.process_memory import give_back
from secateur.core.progress import Progress, Silent
from secateur.core.target import Target
from secateur.export.cards.quantized_card import QuantizationFacts, quantized_card
from secateur.model.formats.compressed_tensors import (
    packed_tensors,
    quantization_config,
    require_packing,
    unpacked,
)
from secateur.model.formats.quantized_source import CONFIG_KEY, CodedSource
from secateur.model.handle import ModelHandle, open_model
from secateur.model.written.checkpoint import Checkpoint, writing
from secateur.model.written.folder_writer import FolderWriter
from secateur.model.written.plan_file import plan_beside
from secateur.model.written.pruned_config import planned_config
from secateur.model.written.reload_check import accept, reloaded_difference
from secateur.model.written.write_settings import Settings
from secateur.pipeline.prune.plan_masks import check_masks
from secateur.pipeline.quantize.mixed_precision import allocate_bits, budget_of
from secateur.pipeline.quantize.rounding import Rounding, rounding_named
from secateur.tensors.layer_stream import LiveBlock, alone, sub_blocks
from secateur.tensors.precision import arithmetic
from secateur.tensors.storage_dtype import storage_type
from secateur_runtime.errors import UsageError
from secateur_runtime.kernels.quantized import Codes, Grid

GRIDS = "model-grids.tmp"
"""Beside finished shards of a run with a budget; a checkpoint clears away what ends like it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """What the weights of a model become: integers of `bits` bits, a scale for every `group` inputs of a row.

    target: a budget such as `size=60MB` for all stored weights; then every layer gets bits of its own and
    `bits` says nothing.
    method: a name of `QUANTIZERS`. protect: `first=N`, `last=N` or globs over tensors, which stay as they
    are.
    sparsity: zeros made on the way, a ratio such as `0.5` or a pattern such as `2:4`; the remaining weights
    then compensate for pruning and rounding together.
    prune: which weights become zero, a name of `secateur.pipeline.prune.weights.methods.weight_methods`.
    """

    bits: int = 4
    group: int = 32
    symmetric: bool = True
    method: str = "gptq"
    protect: tuple[str, ...] = ()
    target: str = ""
    sparsity: str = ""
    prune: str = "sparsegpt"

    @property
    def grid(self) -> Grid:
        """The grid of most weights; raises UsageError for one there is not."""
        return Grid(bits=self.bits, group=self.group, symmetric=self.symmetric)

    @property
    def rounding(self) -> Rounding:
        """How a weight is rounded; raises UsageError for a method or a sparsity that cannot work."""
        return rounding_named(self.method, self.sparsity, self.prune)

    def as_strings(self) -> dict[str, str]:
        """Return every option as the folder records it."""
        return {name: str(value) for name, value in asdict(self).items()}

    def check(self) -> None:
        """Raise UsageError for options that cannot work, or not together, with any model."""
        _ = self.grid
        _ = self.rounding
        if self.target:
            Target.parse([self.target])


@dataclass(frozen=True, slots=True)
class Quantized:
    """What a run made.

    grids: name of a grid -> how many weights lie on it. bits_per_weight: of those weights, their scales and
    zeros included.
    sparsity: share of zeros among them. parameters, bytes: of the whole model.
    reload_difference: largest difference between the reloaded folder's last hidden states and those of the
    run, relative.
    """

    out: Path
    method: str
    grids: Mapping[str, int]
    bits_per_weight: float
    sparsity: float
    parameters: int
    bytes: int
    resumed_blocks: int
    reload_difference: float


def quantize_opened(
    model: ModelHandle,
    how: Quantization,
    calibration: Calibration,
    out: Path,
    *,
    seed: int,
    settings: Settings,
    progress: Progress,
) -> Quantized:
    """Quantize `model` into the folder `out`, continuing where the same run was killed.

    Raises UsageError for options that cannot work, PlanError where the zeros are not those of the plan next
    to the weights, TextError if the text is too short, MissingExtraError without compressed-tensors,
    VerificationError if the reloaded folder does not compute what the run computed; nothing is left then.
    """
    require_packing()
    rounding = how.rounding
    if isinstance(model.source, CodedSource) and model.source.grids:
        raise UsageError(f"{model.source.ref} is quantized already: quantize the model it was made from")
    grids = grids_of(model.graph, how)
    _check_zeros(model, rounding, grids)
    dtype = storage_type(settings.dtype, model.graph.tensors)
    kind = settings.arithmetic or "bfloat16"
    budget = budget_of(model.graph, Target.parse([how.target]), grids, dtype.itemsize) if how.target else 0
    reads = bool(rounding.needs or budget)
    tokens = calibration_tokens(model, calibration, seed) if reads else probe(model)
    said = how.as_strings() | {"seed": str(seed)} | (dict(provenance(calibration, tokens)) if reads else {})
    job = {
        "model": model.digest,
        "dtype": str(dtype),
        "arithmetic": kind,
        "secateur": version("secateur"),
        "integers": said,
    }
    with (
        arithmetic(kind),
        writing(out, job, len(model.graph.blocks) + 1, overwrite=settings.overwrite) as checkpoint,
    ):
        if budget:
            grids = _kept(
                checkpoint.partial / GRIDS,
                lambda: allocate_bits(model.graph, model.stream(), grids, budget, tokens, progress),
            )
        run = _QuantizeRun(model, rounding, grids, dtype, checkpoint, seed)
        run.write_outside()
        hidden = HiddenStates(run.stream, tokens, budget=settings.memory, folder=checkpoint.partial)
        run.quantize_blocks(hidden, progress)
        meant = next(hidden.batches()).clone()
        del hidden
        run.write_description(said)
        found = reloaded_difference(checkpoint.partial, tokens, meant)
        accept(found)
        made = run.made(out, how.method, found)
        _write_card(run.writer, made, said)
        checkpoint.publish()
    return made


def grids_of(graph: Graph, how: Quantization) -> dict[str, Grid]:
    """Return tensor name -> grid of all that is quantized.

    Raises UsageError for a group that does not fit a width.
    """
    spared = protected(graph, how.protect)
    grid = how.grid
    linears = [linear for linear in graph.linears if linear.tensor not in spared]
    if not linears:
        raise UsageError("--protect leaves nothing to quantize")
    for linear in linears:
        grid.check(linear.tensor, linear.in_features)
    return {linear.tensor: grid for linear in linears}


def _check_zeros(model: ModelHandle, rounding: Rounding, grids: Mapping[str, Grid]) -> None:
    """Raise PlanError for zeros that the plan next to the weights does not give.

    Raises UsageError for new zeros that would undo those.
    """
    plan = plan_beside(model.source.ref)
    check_masks(model, plan)
    if rounding.pruning is None:
        return
    if plan is not None and plan.sparsity:
        raise UsageError(
            f"{model.source.ref} is pruned already, and what is zero stays zero: leave out --sparsity, or"
            " quantize the dense model"
        )
    for linear in model.graph.linears:
        if linear.tensor in grids:
            rounding.pruning[0].check(linear.tensor, linear.in_features)


def _kept(path: Path, make: Callable[[], dict[str, Grid]]) -> dict[str, Grid]:
    """Return the grids that a killed run found and noted in `path`, or find them and note them."""
    if not path.exists():
        scratch = path.with_suffix(".new.tmp")
        scratch.write_text(json.dumps({name: str(grid) for name, grid in make().items()}), encoding="utf-8")
        scratch.rename(path)
    return {name: Grid.parse(grid) for name, grid in json.loads(path.read_text(encoding="utf-8")).items()}


class _QuantizeRun:
    """One pass over the blocks."""

    def __init__(
        self,
        model: ModelHandle,
        rounding: Rounding,
        grids: Mapping[str, Grid],
        dtype: torch.dtype,
        checkpoint: Checkpoint,
        seed: int,
    ) -> None:
        self.stream = model.stream(outside=dtype)
        self.resumed = max(checkpoint.finished() - 1, 0)
        self._model = model
        self._rounding = rounding
        self._grids = grids
        self._dtype = dtype
        self._checkpoint = checkpoint
        self.writer = FolderWriter(checkpoint, model, dtype)
        self._seed = seed
        self._zeros = self._weights = self._bytes = 0

    def write_outside(self) -> None:
        """Write embeddings, final norm and head, which stay as they are."""
        tensors = {name: self._model.source.read(name).to(self._dtype) for name in self._model.graph.outside}
        if self._checkpoint.finished() == 0:
            self._checkpoint.write(0, tensors)
        self._enter(0, tensors)
        del tensors
        give_back()

    def quantize_blocks(self, hidden: HiddenStates, progress: Progress) -> None:
        """Quantize, write and run every block; those that a killed run finished are read back instead."""
        progress.start("quantize", len(self.stream), self.resumed)
        for index in range(len(self.stream)):
            with self.stream.open(index) as live:
                if index < self.resumed:
                    tensors = load_file(self._checkpoint.shard(index + 1))
                    self._restore(live, tensors)
                    hidden.advance(live)
                else:
                    tensors = self._quantize_sub_blocks(live, hidden)
                    self._checkpoint.write(index + 1, tensors)
                    progress.step(f"block {index}")
                self._enter(index + 1, tensors)

    def _quantize_sub_blocks(self, live: LiveBlock, hidden: HiddenStates) -> dict[str, Tensor]:
        """Quantize attention, run it, then the FFN on its output; return the tensors as they are stored."""
        stored: dict[str, Tensor] = {}
        for part, tensors in sub_blocks(live.block):
            with alone(live, part):
                for name in tensors - self._grids.keys():
                    stored[name] = live.weight(name).to(self._dtype)
                    live.weight(name).copy_(stored[name])
                for stage in live.block.stages:
                    codes = self._quantized(
                        live, [linear.tensor for linear in stage if linear.tensor in tensors], hidden
                    )
                    for name, code in codes.items():
                        stored |= packed_tensors(name, code)
                        self._count(code)
                hidden.advance(live)
        return stored

    def _quantized(self, live: LiveBlock, names: list[str], hidden: HiddenStates) -> dict[str, Codes]:
        """Quantize linears that share their input, which everything before them has made already."""
        linears = [
            linear for linear in live.block.linears if linear.tensor in names and linear.tensor in self._grids
        ]
        if not linears:
            return {}
        stats = collect(live, linears, hidden, self._rounding.needs, self._seed)
        found = dict[str, Codes]()
        give_back()
        # Bfloat16 products are good enough for activations; a solver would keep their error in the weights.
        with arithmetic("float32"):
            for grid in dict.fromkeys(self._grids[linear.tensor] for linear in linears):
                same = [linear.tensor for linear in linears if self._grids[linear.tensor] == grid]
                found |= zip(
                    same,
                    self._rounding([live.weight(name) for name in same], stats[same[0]], grid),
                    strict=True,
                )
        for name, codes in found.items():
            live.weight(name).copy_(codes.dense())
        return found

    def _restore(self, live: LiveBlock, tensors: Mapping[str, Tensor]) -> None:
        for name in live.block.tensors:
            if name in self._grids:
                codes = unpacked(name, self._grids[name], tensors)
                live.weight(name).copy_(codes.dense())
                self._count(codes)
            else:
                live.weight(name).copy_(tensors[name])

    def _count(self, codes: Codes) -> None:
        self._weights += codes.values.numel()
        self._bytes += codes.nbytes
        middle = (
            torch.zeros(1, dtype=torch.int8)
            if codes.zeros is None
            else codes.zeros.repeat_interleave(codes.grid.group, 1)
        )
        self._zeros += int((codes.values == middle).sum())

    def _enter(self, shard: int, tensors: Mapping[str, Tensor]) -> None:
        self.writer.enter(shard, tensors)

    def write_description(self, said: Mapping[str, str]) -> None:
        """Write everything in the folder that is not weights."""
        graph = self._model.graph
        config = planned_config(self._model, Plan(model=""))
        config[CONFIG_KEY] = quantization_config(
            self._grids, [linear.tensor for linear in graph.linears if linear.tensor not in self._grids]
        )
        zeros = self._rounding.sparsity(self._grids)
        plan = Plan(model=self._model.digest, sparsity=zeros, made_by=self._rounding.made_by(said))
        self.writer.describe(config, {"integers": dict(said)}, plan=plan if zeros else None)
        if not zeros:
            self.writer.carry_plan()

    def made(self, out: Path, method: str, found: float) -> Quantized:
        """Return what the run made; `found` is how far the reloaded folder is from it."""
        grids: dict[str, int] = {}
        for name, grid in self._grids.items():
            grids[str(grid)] = grids.get(str(grid), 0) + self._model.graph.tensors[name].numel
        size = self.writer.weight_bytes()
        bits = 8 * self._bytes / self._weights
        zeros = self._zeros / self._weights
        return Quantized(
            out, method, grids, bits, zeros, self._model.graph.parameters, size, self.resumed, found
        )


def _write_card(writer: FolderWriter, made: Quantized, said: Mapping[str, str]) -> None:
    facts = QuantizationFacts(
        name=Path(writer.model.source.ref).name,
        said=said,
        grids=made.grids,
        bits_per_weight=made.bits_per_weight,
        bytes=made.bytes,
        difference=made.reload_difference,
        stock=writer.stock,
    )
    writer.write_card(quantized_card(writer.earlier_card(), facts))


def quantize(
    src: str,
    out: str | Path,
    how: Quantization | None = None,
    *,
    calibration: Calibration | None = None,
    seed: int = 0,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> Quantized:
    """Round the weights of the model `src` to integers and write the folder `out`, packed and compared.

    how: 4 bits in groups of 32 by GPTQ if left out. Weights that are zero stay zero.
    Raises SecateurError for a model, a text or options that cannot work, VerificationError if the reloaded
    folder does not compute what was meant; nothing is left in place then.
    """
    text = calibration or Calibration()
    wanted = settings or Settings()
    return quantize_opened(
        open_model(src),
        how or Quantization(),
        text,
        Path(out),
        seed=seed,
        settings=wanted,
        progress=progress or Silent(),
    )
