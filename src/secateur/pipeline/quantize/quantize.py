"""Quantize a model block by block into a packed folder for stock transformers, reloaded and compared."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from secateur.allocate.protect import protected
from secateur.calibrate.calibration import Calibration, calibration_tokens, text_of
from secateur.calibrate.self_sampled import probe
from secateur.core.context import RunContext, Settings
from secateur.core.graph import Graph
from secateur.core.plan import Plan
from secateur.core.progress import Progress, Silent
from secateur.core.target import Target
from secateur.export.cards.quantized_card import QuantizationFacts, quantized_card
from secateur.model.formats.compressed_tensors import require_packing
from secateur.model.formats.quantized_source import CONFIG_KEY, CodedSource
from secateur.model.handle import ModelHandle, open_model
from secateur.model.written.checkpoint import writing
from secateur.model.written.folder_writer import FolderWriter
from secateur.model.written.plan_file import plan_beside
from secateur.model.written.pruned_config import planned_config
from secateur.model.written.reload_check import accept, reloaded_difference
from secateur.pipeline.prune.plan_masks import check_masks
from secateur.pipeline.quantize.mixed_precision import allocate_bits, budget_of
from secateur.pipeline.quantize.quantizing_pass import QuantizingPass
from secateur.pipeline.quantize.rounding import Rounding, rounding_named
from secateur.tensors.precision import arithmetic
from secateur.tensors.storage_dtype import storage_type
from secateur_runtime.errors import UsageError
from secateur_runtime.kernels.quantized import Grid

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

    @property
    def budget(self) -> Target | None:
        """The target; raises TargetError for text that is none."""
        return Target.of(self.target) if self.target else None

    def as_strings(self) -> dict[str, str]:
        """Return every option as the folder records it."""
        return {name: str(value) for name, value in asdict(self).items()}

    def check(self) -> None:
        """Raise UsageError for options that cannot work, or not together, with any model."""
        _ = self.grid
        _ = self.rounding
        _ = self.budget


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
    model: ModelHandle, how: Quantization, calibration: Calibration, out: Path, context: RunContext
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
    dtype = storage_type(context.settings.dtype, model.graph.tensors)
    kind = context.settings.arithmetic or "bfloat16"
    budget = budget_of(model.graph, how.budget, grids, dtype.itemsize) if how.budget else 0
    reads = bool(rounding.needs or budget)
    tokens = calibration_tokens(model, calibration, context.seed) if reads else probe(model)
    text = text_of(calibration, tokens) if reads else None
    said = how.as_strings() | {"seed": str(context.seed)} | (text.facts if text else {})
    job = {
        "model": model.digest,
        "dtype": str(dtype),
        "arithmetic": kind,
        "secateur": version("secateur"),
        "integers": said,
    }
    with (
        arithmetic(kind),
        writing(out, job, len(model.graph.blocks) + 1, overwrite=context.settings.overwrite) as checkpoint,
    ):
        if budget:
            grids = _kept(
                checkpoint.partial / GRIDS,
                lambda: allocate_bits(model.graph, model.stream(), grids, budget, tokens, context.progress),
            )
        writer = FolderWriter(checkpoint, model, dtype)
        run = QuantizingPass(writer, rounding, grids, tokens, context)
        run.write_blocks("quantize", range(len(run.stream)), context.progress)
        meant = next(run.hidden.batches()).clone()
        del run.hidden
        config = planned_config(model, Plan(model="")) | {CONFIG_KEY: run.config()}
        plan = rounding.plan(model.digest, grids, text, context.seed)
        writer.describe(config, {"integers": said}, plan=plan)
        if plan is None:
            writer.carry_plan()
        found = reloaded_difference(checkpoint.partial, tokens, meant)
        accept(found)
        made = _made(run, out, how.method, found)
        _write_card(writer, made, said)
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


def _made(run: QuantizingPass, out: Path, method: str, found: float) -> Quantized:
    return Quantized(
        out=out,
        method=method,
        grids=run.weights_on_grids(),
        bits_per_weight=8 * run.bytes / run.weights,
        sparsity=run.zeros / run.weights,
        parameters=run.writer.model.graph.parameters,
        bytes=run.writer.weight_bytes(),
        resumed_blocks=run.resumed,
        reload_difference=found,
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
    return quantize_opened(
        open_model(src),
        how or Quantization(),
        calibration or Calibration(),
        Path(out),
        RunContext(seed=seed, progress=progress or Silent(), settings=settings or Settings()),
    )
