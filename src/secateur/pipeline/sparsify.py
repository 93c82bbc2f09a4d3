"""From a plan of sparsities to a written, reloaded and compared folder."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from secateur.apply.methods import Method, method_of
from secateur.apply.rounding import storage_type
from secateur.calibrate.collect import HiddenStates, collect
from secateur.core.errors import VerificationError
from secateur.core.pattern import Pattern
from secateur.core.plan import Plan
from secateur.core.progress import Progress
from secateur.core.stream import LiveBlock
from secateur.model.arithmetic import Arithmetic, arithmetic
from secateur.model.checkpoint import MANIFEST, Checkpoint, writing
from secateur.model.opened import Opened, open_model
from secateur.pipeline.decide import replay_calibration

_PROBE = (8, 64)
_TOLERANCE = 1e-5


@dataclass(frozen=True, slots=True)
class Pruned:
    """What a run made.

    sparsity: share of zeros over the tensors the plan prunes.
    reload_difference: largest difference between the reloaded folder's last hidden states and those of the run, relative
        to their largest value.
    """

    out: Path
    plan: Plan
    parameters: int
    sparsity: float
    bytes: int
    resumed_blocks: int
    reload_difference: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to write: storage type (`auto` or a name of `DTYPES`), arithmetic, bytes of hidden states held in memory."""

    dtype: str = "auto"
    arithmetic: Arithmetic = "bfloat16"
    memory: int = 1 << 30
    overwrite: bool = False


def sparsify(model: Opened, plan: Plan, out: Path, settings: Settings, progress: Progress) -> Pruned:
    """Prune `model` by `plan` into the folder `out`, going on where the same run was killed.

    Raises PlanError if the plan is not for this model, OutputError if nothing can be written, VerificationError if the
    reloaded folder does not compute what the run computed; then nothing is left in place.
    """
    plan.validate(model.graph, model.digest)
    method = method_of(plan.made_by)
    tokens = replay_calibration(model, plan) if method.needs else _probe(model)
    dtype = storage_type(settings.dtype, model.graph.tensors)
    job = {"plan": plan.digest(), "dtype": str(dtype), "arithmetic": settings.arithmetic, "secateur": version("secateur")}
    with arithmetic(settings.arithmetic), writing(out, job, len(model.graph.blocks) + 1, overwrite=settings.overwrite) as checkpoint:
        run = _Run(model, plan, method, dtype, checkpoint, progress)
        run.write_outside()
        hidden = HiddenStates(run.stream, tokens, budget=settings.memory, folder=checkpoint.partial)
        run.prune_blocks(hidden)
        run.write_description()
        difference = _reload(checkpoint.partial, tokens, hidden)
        size = sum(path.stat().st_size for path in checkpoint.partial.glob("*.safetensors"))
        checkpoint.publish()
    return Pruned(out, plan, model.graph.parameters, run.zeros / max(run.weights, 1), size, run.resumed, difference)


class _Run:
    """One pass over the blocks."""

    def __init__(self, model: Opened, plan: Plan, method: Method, dtype: torch.dtype, checkpoint: Checkpoint, progress: Progress) -> None:
        self.stream = model.stream(outside=dtype)
        self.zeros = self.weights = 0
        self.resumed = max(checkpoint.finished() - 1, 0)
        self._model, self._plan, self._method, self._dtype = model, plan, method, dtype
        self._checkpoint, self._progress = checkpoint, progress
        self._patterns = {name: Pattern.parse(text) for name, text in plan.sparsity.items()}
        self._seed = int(plan.made_by.get("seed", "0"))

    def write_outside(self) -> None:
        """Write embeddings, final norm and head, which are never pruned."""
        tensors = {name: self._model.source.read(name).to(self._dtype) for name in self._model.graph.outside}
        if self._checkpoint.finished() == 0:
            self._checkpoint.write(0, tensors)
        self._checkpoint.add(0, {name: tensor.nbytes for name, tensor in tensors.items()})

    def prune_blocks(self, hidden: HiddenStates) -> None:
        """Prune, write and run every block; blocks that a killed run finished are read back instead of pruned."""
        self._progress.start("prune", len(self.stream), self.resumed)
        for index in range(len(self.stream)):
            with self.stream.open(index) as live:
                if index < self.resumed:
                    self._restore(index, live)
                else:
                    self._prune(live, hidden)
                    self._write(index, live)
                self._count(live)
                hidden.advance(live)
            if index >= self.resumed:
                self._progress.step(f"block {index}")

    def write_description(self) -> None:
        """Write everything in the folder that is not weights."""
        self._checkpoint.write_index()
        config = {**self._model.source.config, "dtype": str(self._dtype).removeprefix("torch.")}
        self._checkpoint.write_json("config.json", config)
        self._model.source.copy_companions(self._checkpoint.partial)
        (self._checkpoint.partial / "plan.json").write_text(self._plan.to_json(), encoding="utf-8")
        manifest = {"plan": self._plan.digest(), "source": self._model.digest, "shards": self._checkpoint.digests(), "secateur": version("secateur")}
        self._checkpoint.write_json(MANIFEST, manifest)

    def _prune(self, live: LiveBlock, hidden: HiddenStates) -> None:
        """Prune one block stage by stage: each linear sees inputs that the pruned linears before it made."""
        for stage in live.block.stages:
            linears = [linear for linear in stage if linear.tensor in self._patterns]
            if not linears:
                continue
            stats = collect(live, linears, hidden, self._method.needs, self._seed)
            for linear in linears:
                weight = live.weight(linear.tensor)
                pattern = self._patterns[linear.tensor]
                weight.copy_(self._method.solver(weight, stats[linear.tensor], pattern, self._method.scorer, self._method.scope))
        for name in live.block.tensors:
            weight = live.weight(name)
            weight.copy_(weight.to(self._dtype))

    def _write(self, index: int, live: LiveBlock) -> None:
        self._checkpoint.write(index + 1, {name: live.weight(name).to(self._dtype) for name in live.block.tensors})

    def _restore(self, index: int, live: LiveBlock) -> None:
        for name, tensor in load_file(self._checkpoint.shard(index + 1)).items():
            live.weight(name).copy_(tensor)

    def _count(self, live: LiveBlock) -> None:
        self._checkpoint.add(live.block.index + 1, {name: live.weight(name).numel() * self._dtype.itemsize for name in live.block.tensors})
        for name in live.block.tensors:
            if name in self._patterns:
                weight = live.weight(name)
                self.weights += weight.numel()
                self.zeros += int((weight == 0).sum())


def _probe(model: Opened) -> Tensor:
    """Return token ids for a run that needs no calibration text, so that its output can be compared all the same."""
    return torch.randint(model.graph.vocab_size, _PROBE, generator=torch.Generator().manual_seed(0))


def _reload(folder: Path, tokens: Tensor, hidden: HiddenStates) -> float:
    """Reload the folder block by block in transformers' modules and compare the first batch; return the relative difference."""
    stream = open_model(str(folder)).stream()
    meant = next(hidden.batches())
    (states,) = stream.embed([tokens[: len(meant)]])
    for index in range(len(stream)):
        with stream.open(index) as live:
            states = live(states)
    difference = float((states - meant).abs().max() / meant.abs().max())
    if not difference <= _TOLERANCE:
        raise VerificationError(f"the written model does not compute what was meant (relative difference {difference:.1e}); nothing was kept")
    return difference
