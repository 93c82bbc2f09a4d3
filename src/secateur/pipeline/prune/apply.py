"""Apply a plan: write the pruned model as a folder, reload it and compare."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from secateur.calibrate.calibration import replay_calibration
from secateur.calibrate.input_statistics import HiddenStates, collect
from secateur.calibrate.self_sampled import probe
from secateur.core.footprint import dropped_halves
from secateur.core.graph import Block, Group
from secateur.core.pattern import Pattern
from secateur.core.plan import Plan
from secateur.core.process_memory import give_back
from secateur.core.progress import Progress, Silent
from secateur.export.cards.pruned_card import Facts, model_card
from secateur.model.block_stream import ModelStream
from secateur.model.formats.open_source import hub_name
from secateur.model.handle import ModelHandle, open_model
from secateur.model.tokenizer_pruning import check_tokenizer
from secateur.model.views.hidden_channels import Narrowed
from secateur.model.views.merged import Merged
from secateur.model.written.checkpoint import Checkpoint, writing
from secateur.model.written.folder_writer import FolderWriter
from secateur.model.written.pruned_config import planned_config, surviving_blocks
from secateur.model.written.reload_check import accept, difference, last_states
from secateur.model.written.write_settings import Settings
from secateur.pipeline.prune.depth.gap_repair import close_gap, gaps
from secateur.pipeline.prune.rotation import replayed
from secateur.pipeline.prune.weights.methods import WeightMethod, method_of
from secateur.pipeline.prune.width.repair_units import closes_gaps, repaired, unit_repair_of
from secateur.pipeline.prune.width.unit_removal import carve, inputs_kept
from secateur.tensors.layer_stream import LiveBlock, alone, sub_blocks, without
from secateur.tensors.precision import Arithmetic, arithmetic
from secateur.tensors.storage_dtype import storage_type
from secateur.transform.surgery import cut, uncut


@dataclass(frozen=True, slots=True)
class Pruned:
    """What a run made.

    parameters: stored parameters of the result (a tied head counts once).
    sparsity: share of zeros over the tensors the plan prunes weight by weight.
    reload_difference: largest difference between the reloaded folder's last hidden states and those of the
    run, relative to their largest value.
    """

    out: Path
    plan: Plan
    parameters: int
    sparsity: float
    bytes: int
    resumed_blocks: int
    reload_difference: float


def execute(model: ModelHandle, plan: Plan, out: Path, settings: Settings, progress: Progress) -> Pruned:
    """Prune `model` by `plan` into the folder `out`, continuing where the same run was killed.

    Raises PlanError if the plan is not for this model, OutputError if nothing can be written,
    VerificationError if the reloaded folder does not compute what the run computed; nothing is left in place
    then.
    """
    plan.validate(model.graph, model.digest)
    method = method_of(plan.made_by if plan.sparsity else {})
    given = model
    tokens = (
        replay_calibration(model, plan)
        if "calibration" in plan.made_by
        else probe(model, plan.keep.get(model.graph.vocab.name))
    )
    model = replayed(
        ModelHandle(Merged(given.source, given.graph, plan.merge), given.graph) if plan.merge else given,
        plan,
        tokens,
        progress,
    )
    model = repaired(model, plan)
    dtype = storage_type(settings.dtype, model.graph.tensors)
    kind: Arithmetic = settings.arithmetic or ("float32" if plan.keep or plan.drop else "bfloat16")
    job = {"plan": plan.digest(), "dtype": str(dtype), "arithmetic": kind, "secateur": version("secateur")}
    alive = surviving_blocks(model, plan)
    with arithmetic(kind), writing(out, job, len(alive) + 1, overwrite=settings.overwrite) as checkpoint:
        run = _ApplyRun(model, plan, method, dtype, checkpoint, progress)
        run.write_outside()
        hidden = HiddenStates(run.stream, tokens, budget=settings.memory, folder=checkpoint.partial)
        run.prune_blocks(alive, hidden)
        meant = next(hidden.batches()).clone()
        del hidden
        run.write_description()
        found = _reload(checkpoint.partial, tokens[: len(meant)], meant, run)
        zeros = run.zeros / max(run.weights, 1)
        size = run.writer.weight_bytes()
        made = Pruned(out, plan, run.parameters, zeros, size, run.resumed, found)
        _write_card(run.writer, given, made)
        checkpoint.publish()
    return made


class _ApplyRun:
    """One pass over the blocks."""

    def __init__(
        self,
        model: ModelHandle,
        plan: Plan,
        method: WeightMethod,
        dtype: torch.dtype,
        checkpoint: Checkpoint,
        progress: Progress,
    ) -> None:
        self.kept = plan.keep.get(model.graph.hidden.name, tuple(range(model.graph.hidden_size)))
        self.tokens = plan.keep.get(model.graph.vocab.name)
        self.cuts_channels = len(self.kept) < model.graph.hidden_size
        self.source = Narrowed(model.source, model.graph, self.kept, dtype)
        self.stream = (
            ModelStream(self.source, model.graph) if self.cuts_channels else model.stream(outside=dtype)
        )
        self.zeros = self.weights = self.parameters = 0
        self.resumed = max(checkpoint.finished() - 1, 0)
        self._model = model
        self._plan = plan
        self._method = method
        self._dtype = dtype
        self._checkpoint = checkpoint
        self.writer = FolderWriter(checkpoint, model, dtype)
        self._progress = progress
        self._patterns = {name: Pattern.parse(text) for name, text in plan.sparsity.items()}
        self._repair = unit_repair_of(plan)
        self._gaps = gaps(model.graph, plan.drop) if closes_gaps(plan) else {}
        self._seed = int(plan.made_by.get("seed", "0"))

    def write_outside(self) -> None:
        """Write embeddings, final norm and head, which lose hidden channels and tokens at most."""
        graph = self._model.graph
        tensors = cut(
            {name: self.source.stored(name) for name in graph.outside},
            [graph.hidden, graph.vocab],
            self._plan.keep,
        )
        if self._checkpoint.finished() == 0:
            self._checkpoint.write(0, tensors)
        self._enter(0, tensors)
        del tensors
        give_back()

    def prune_blocks(self, alive: tuple[int, ...], hidden: HiddenStates) -> None:
        """Prune, write and run every surviving block.

        Those that a killed run finished are read back instead.
        """
        self._progress.start("prune", len(alive), self.resumed)
        for place, index in enumerate(alive):
            with self.stream.open(index) as live, without(live, dropped_halves(live.block, self._plan.drop)):
                if place < self.resumed:
                    self._restore(place, live)
                    hidden.advance(live)
                else:
                    self._prune_sub_blocks(live, hidden)
                tensors = self._stored(place, live)
                if place >= self.resumed:
                    self._checkpoint.write(place + 1, tensors)
                self._enter(place + 1, tensors)
                self._count(live)
            if place >= self.resumed:
                self._progress.step(f"block {index}")

    def _prune_sub_blocks(self, live: LiveBlock, hidden: HiddenStates) -> None:
        """Prune attention, run it, then prune the FFN on its output: each sub-block runs once."""
        for part, tensors in sub_blocks(live.block, dropped_halves(live.block, self._plan.drop)):
            with alone(live, part):
                carve(live, hidden, tensors, self._plan.keep, self._repair, self._seed)
                if gap := self._gaps.get((live.block.index, part)):
                    whole = ModelStream(self.source, self._model.graph)
                    close_gap(live, part, hidden, whole, gap, inputs_kept(live, self._plan.keep))
                self._sparsify(live, hidden, tensors)
                for name in tensors - self.source.folds.keys():
                    live.weight(name).copy_(live.weight(name).to(self._dtype))
                hidden.advance(live)

    def write_description(self) -> None:
        """Write everything in the folder that is not weights."""
        self.writer.describe(
            planned_config(self._model, self._plan),
            {"plan": self._plan.digest()},
            plan=self._plan,
            tokens=self.tokens,
        )

    def _sparsify(self, live: LiveBlock, hidden: HiddenStates, tensors: frozenset[str]) -> None:
        """Prune weight by weight, stage by stage.

        Each linear sees the inputs that the pruned linears before it make.
        """
        for stage in live.block.stages:
            linears = [
                linear for linear in stage if linear.tensor in self._patterns and linear.tensor in tensors
            ]
            if not linears:
                continue
            stats = collect(live, linears, hidden, self._method.needs, self._seed)
            give_back()
            # Bfloat16 products are good enough for activations; a solver would keep their error in the
            # weights.
            with arithmetic("float32"):
                for linear in linears:
                    weight = live.weight(linear.tensor)
                    pattern = self._patterns[linear.tensor]
                    weight.copy_(
                        self._method.solver(
                            weight, stats[linear.tensor], pattern, self._method.scorer, self._method.scope
                        )
                    )

    def _stored(self, place: int, live: LiveBlock) -> dict[str, Tensor]:
        """Return the tensors of a block as they are stored: cut, rounded, numbered by their new place."""
        block = live.block
        folds = self.source.folds
        whole = {
            name: self.source.stored(name) if name in folds else live.weight(name).to(self._dtype)
            for name in _present(block, self._plan)
        }
        return {
            _renamed(name, block, place): tensor
            for name, tensor in cut(whole, self._groups(block), self._plan.keep).items()
        }

    def _restore(self, place: int, live: LiveBlock) -> None:
        block = live.block
        # What is rescaled is never pruned weight by weight, and is in its place already.
        names = {
            _renamed(name, block, place): name
            for name in _present(block, self._plan)
            if name not in self.source.folds
        }
        stored = {
            names[name]: tensor
            for name, tensor in load_file(self._checkpoint.shard(place + 1)).items()
            if name in names
        }
        shapes = {name: self._model.graph.tensors[name].shape for name in stored}
        for name, tensor in uncut(stored, shapes, self._groups(block), self._plan.keep).items():
            live.weight(name).copy_(tensor)

    def _groups(self, block: Block) -> list[Group]:
        """Return the groups that cut the tensors which a block keeps."""
        removed = dropped_halves(block, self._plan.drop)
        return [*(group for group in block.groups if group.half not in removed), self._model.graph.hidden]

    def _enter(self, shard: int, tensors: dict[str, Tensor]) -> None:
        self.writer.enter(shard, tensors)
        self.parameters += sum(tensor.numel() for tensor in tensors.values())

    def _count(self, live: LiveBlock) -> None:
        for name in _present(live.block, self._plan):
            if name in self._patterns:
                weight = live.weight(name)
                self.weights += weight.numel()
                self.zeros += int((weight == 0).sum())


def _present(block: Block, plan: Plan) -> list[str]:
    """Return the tensors of a block that are not in a dropped sub-block."""
    removed = {name for part in dropped_halves(block, plan.drop) for name in block.halves[part]}
    return [name for name in block.tensors if name not in removed]


def _renamed(name: str, block: Block, place: int) -> str:
    return block.prefix.replace(f".{block.index}.", f".{place}.") + name.removeprefix(block.prefix)


def _reload(folder: Path, tokens: Tensor, meant: Tensor, run: _ApplyRun) -> float:
    """Run `tokens` through the written folder, block by block; return the relative difference from `meant`.

    tokens: ids `[windows, tokens]`; meant: last hidden states `[windows, tokens, hidden_size]` of the run.
    Where channels or tokens were cut, so was the head, and the logits of each window's last position are
    compared too.
    """
    written = open_model(str(folder))
    stream = written.stream()
    alive = torch.tensor(run.tokens or range(written.graph.vocab_size))
    if run.tokens:
        check_tokenizer(written.source.tokenizer(), run.source.tokenizer(), run.tokens)
        tokens = torch.searchsorted(alive, tokens)
    states = last_states(stream, tokens)
    found = difference(states, meant[..., run.kept])
    if run.cuts_channels or run.tokens:
        given, wanted = (
            torch.cat(list(model.logits(ends[:, -1])))
            for model, ends in ((stream, states), (run.stream, meant))
        )
        found = max(found, difference(given, wanted[:, alive]))
    accept(found)
    return found


def _write_card(writer: FolderWriter, model: ModelHandle, made: Pruned) -> None:
    facts = Facts(
        name=Path(model.source.ref).name,
        base=hub_name(model.source.ref),
        parameters=made.parameters,
        bytes=made.bytes,
        zeros=made.sparsity,
        difference=made.reload_difference,
        stock=writer.stock,
    )
    writer.write_card(model_card(made.plan, model.graph, facts))


def apply(
    plan: Plan,
    src: str,
    out: str | Path,
    *,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> Pruned:
    """Apply `plan` to the model `src` and write the folder `out`, which appears once reloaded and compared.

    Raises PlanError if the plan is for another model, OutputError if `out` cannot be written,
    VerificationError if the reloaded folder does not compute what was meant.
    """
    wanted = settings or Settings()
    if wanted.dtype == "auto":
        # A budget in bytes was computed for this type.
        wanted = replace(wanted, dtype=plan.made_by.get("dtype", "auto"))
    return execute(open_model(src), plan, Path(out), wanted, progress or Silent())
