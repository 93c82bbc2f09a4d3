"""Distillation: train a whole model to predict what its dense teacher predicts.

What of it learns is up to the recovery method.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from secateur.calibrate.calibration import held_out
from secateur.core.context import Arithmetic, RunContext
from secateur.core.plan import Plan
from secateur.core.process_memory import give_back
from secateur.core.progress import Progress
from secateur.model.formats.compressed_tensors import PackedSource
from secateur.model.full_model import load_whole
from secateur.model.handle import ModelHandle, open_model
from secateur.model.written.reload_check import difference, last_states
from secateur.pipeline.prune.plan_masks import mask_of
from secateur.pipeline.recover.accelerate_processes import make_accelerator
from secateur.pipeline.recover.gradual_pruning import by_criterion, check_growing
from secateur.pipeline.recover.layer_mapping import pair
from secateur.pipeline.recover.methods import RECOVERIES, LoadedStudent, RecoveryMethod, method_training
from secateur.pipeline.recover.weight_writer import Rewrite
from secateur.tensors.precision import arithmetic, has_bfloat16
from secateur.train import training_state
from secateur.train.gradual import Gradual
from secateur.train.learner import Learner, Loss
from secateur.train.losses import KINDS, Kind, Targets
from secateur.train.schedule import SCHEDULES, Schedule
from secateur.train.teacher_targets import teach
from secateur.train.trainer import Regime, Trained, Trainer
from secateur_runtime.errors import UsageError, nearest
from secateur_runtime.kernels.quantized import Codes

_LOOKING = 0.5
_LEAST_LOOKS = 2
"""Tokens that are looked at for each that is trained on, at most, and looks at least. A look costs a third of
training on the same.
"""
_EVERY = 5
"""Steps of training between two cuts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Distill:
    """Train a whole model to predict what its teacher predicts.

    trains: what learns, as `RecoveryMethod.trains` says: `all` weights but embeddings and head, adapters of
    `rank` (`lora`, scaled by `alpha` / `rank`), each `bias`, the `scales` of a quantized model, or what a
    plug-in trains.
    steps: of AdamW; batch: tokens in each, over all processes; micro: windows that a process runs at once,
    the rest is accumulated.
    rate: highest learning rate; of all weights relative to the root mean square of each, of scales to each;
    None for the method's own.
    schedule: `cosine` or `wsd`; warmup: its share of the steps.
    loss: `forward`, `reverse` or `both` Kullback-Leibler divergences at `temperature`, of the teacher's `top`
    likeliest tokens and all others as one; states, text: weights of the distance of the last hidden states,
    and of the negative log likelihood of the text.
    sparsity: share of zeros that every linear of the blocks grows along a cubic while it is trained, by
    `criterion`, and has from `grow` of the steps on; None leaves zeros as they are. The best is then the best
    from there on, and the result need not be better than its start.
    held: share of the windows that nothing is learned from. They are looked at `checks` times, or as often as
    costs a sixth of the training, but twice; `patience` looks in a row without gain end the run, and the
    model is what it was at its best.
    checkpointing: less memory, a third more time.
    """

    trains: str = "all"
    steps: int = 400
    batch: int = 2048
    micro: int = 4
    rate: float | None = None
    schedule: Schedule = "cosine"
    warmup: float = 0.05
    loss: Kind = "forward"
    temperature: float = 1.0
    top: int = 64
    states: float = 0.0
    text: float = 0.0
    sparsity: float | None = None
    criterion: str = "wanda"
    grow: float = 0.6
    rank: int = 16
    alpha: int = 32
    held: float = 0.125
    checks: int = 10
    patience: int = 3
    checkpointing: bool = False

    @property
    def row(self) -> RecoveryMethod:
        """The method; raises UsageError if `trains` is unknown."""
        return method_training(self.trains)

    @property
    def method(self) -> str:
        """What it is called on the command line."""
        return self.row.name

    @property
    def samples(self) -> int:
        """Windows of text that it is made for."""
        return 512

    def check(self) -> None:
        """Raise UsageError for values that cannot work."""
        _ = self.row
        for name, value, known in (("--loss", self.loss, KINDS), ("--schedule", self.schedule, SCHEDULES)):
            if value not in known:
                raise UsageError(
                    f"unknown {name} {value!r}{nearest(value, known)}; known: {', '.join(known)}"
                )
        for name in ("steps", "batch", "micro", "temperature", "top", "rank", "alpha", "checks"):
            if not getattr(self, name) > 0:
                raise UsageError(f"--{name} {getattr(self, name)} must be above 0")
        if self.rate is not None and not self.rate > 0:
            raise UsageError(f"--rate {self.rate} must be above 0")
        if self.sparsity is not None and not (
            0 < self.sparsity < 1 and 0 <= self.grow < 1 and "sparsity" in self.row.options
        ):
            able = " or ".join(name for name, row in RECOVERIES.items() if "sparsity" in row.options)
            raise UsageError(
                f"--sparsity {self.sparsity} must be between 0 and 1, and weights are pruned only where all"
                f" are trained (--method {able})"
            )
        check_growing(self.criterion)
        if not 0 < self.held < 1 or min(self.states, self.text, self.warmup, self.patience) < 0:
            raise UsageError("held must be between 0 and 1; states, text, warmup and patience not below 0")

    def regime(self, windows: int, length: int, processes: int, *, bfloat16: bool) -> Regime:
        """Return how `windows` of `length` tokens, with the held-out ones, are trained on by `processes`."""
        affordable = int(_LOOKING * self.steps * self.batch / (held_out(windows, self.held) * length))
        return Regime(
            steps=self.steps,
            # Every process runs equally many windows, so that the mean of their gradients is that of the
            # step.
            batch=math.ceil(max(1, round(self.batch / length)) / processes) * processes,
            micro=self.micro,
            rate=self.rate or self.row.rate,
            schedule=self.schedule,
            warmup=round(self.warmup * self.steps),
            checks=min(self.checks, max(_LEAST_LOOKS, affordable)),
            patience=self.patience,
            bfloat16=bfloat16,
            checkpointing=self.checkpointing,
        )


@dataclass(frozen=True, slots=True)
class Turn:
    """One of several trainings on the same text.

    answers: file of what the teacher says about it, made by the first. first: steps that the earlier ones
    took.
    """

    answers: Path
    first: int = 0


class WholeRun:
    """Training of a whole model in the folder that it is written to.

    Every process of `accelerate launch` takes part.

    turn: None for a training by itself, whose teacher's predictions stay in the folder until the model is
    written.
    """

    def __init__(
        self,
        student: ModelHandle,
        teacher: ModelHandle,
        plan: Plan | None,
        how: Distill,
        folder: Path,
        kind: Arithmetic,
        turn: Turn | None = None,
    ) -> None:
        self._turn = turn or Turn(folder / "model-teacher.safetensors")
        self._student = student
        self._teacher = teacher
        self._plan = plan
        self._how = how
        self._folder = folder
        self._channels = pair(student, teacher, plan).channels if how.states else None
        self.accelerator = make_accelerator()
        able = has_bfloat16() if self.accelerator.device.type == "cpu" else torch.cuda.is_bf16_supported()
        self._bfloat16 = kind == "bfloat16" and able
        self.changed: dict[str, Tensor] = {}
        self.trained: Trained | None = None

    def run(self, tokens: Tensor, context: RunContext) -> None:
        """Train on windows `[windows, length]`, the last of them held out.

        `changed` then holds the weights that came of it.
        """
        targets = self._targets(tokens, context.progress)
        learner = self._learner(context.seed)
        learner.model.to(self.accelerator.device)
        windows, length = tokens.shape
        regime = replace(
            self._how.regime(windows, length, self.accelerator.num_processes, bfloat16=self._bfloat16),
            first=self._turn.first,
        )
        loss = Loss(
            kind=self._how.loss,
            temperature=self._how.temperature,
            states=self._how.states,
            text=self._how.text,
        )
        gradual = self._gradual(learner.model, tokens[: windows - held_out(windows, self._how.held)])
        trainer = Trainer(self.accelerator, learner, loss, regime, self._folder, context.seed, gradual)
        held = held_out(len(tokens), self._how.held)
        self.trained = trainer.run(tokens, targets, held, context.progress)
        if self.trained.best_step:
            self.changed = {name: tensor.cpu() for name, tensor in learner.tensors().items()}

    def _gradual(self, whole: Any, tokens: Tensor) -> Gradual | None:
        if self._how.sparsity is None:
            return None
        graph = self._student.graph
        choose = by_criterion(self._how.criterion, whole, graph, tokens)
        tensors = [linear.tensor for linear in graph.linears]
        return Gradual(tensors, self._how.sparsity, round(self._how.grow * self._how.steps), _EVERY, choose)

    def write(self, rewrite: Rewrite) -> None:
        """Write every shard that is not there yet, and forget what a resume would have needed."""
        for shard in range(rewrite.finished, len(self._student.graph.blocks) + 1):
            rewrite.write(shard, self.changed)
        for path in self._folder.glob("model-[!0-9]*.safetensors"):
            path.unlink()

    def compare(self, rewrite: Rewrite, tokens: Tensor) -> float:
        """Return how far the written folder's logits are from those of the trained model in transformers."""
        whole = load_whole(self._student)
        whole.load_state_dict(
            {name: rewrite.meant(name, self.changed) for name in self._student.graph.tensors}, strict=False
        )
        with torch.no_grad(), arithmetic("float32"):
            meant = whole(tokens[:1], use_cache=False).logits[0, -1:]
            stream = open_model(str(rewrite.folder)).stream()
            (found,) = stream.logits(last_states(stream, tokens[:1])[:, -1])
        return difference(found, meant)

    def _targets(self, tokens: Tensor, progress: Progress) -> Targets:
        """Return what the teacher says, from a file where it has said it already."""
        path = self._turn.answers
        if self.accelerator.is_main_process and not path.exists():
            whole = load_whole(self._teacher)
            states = bool(self._how.states)
            device = self.accelerator.device
            said = teach(
                whole,
                tokens,
                self._how.top,
                self._how.temperature,
                device=device,
                bfloat16=self._bfloat16,
                states=states,
                progress=progress,
            )
            kept = (
                {}
                if said.states is None
                else {"states": said.states if self._channels is None else said.states[..., self._channels]}
            )
            training_state.save(path, {"tokens": said.tokens, "logs": said.logs, **kept}, {})
            del whole
            give_back()
        self.accelerator.wait_for_everyone()
        return Targets(**training_state.load(path)[0])

    def _learner(self, seed: int) -> Learner:
        row = self._how.row
        assert row.learner is not None
        graph = self._student.graph
        source = self._student.source
        whole = load_whole(self._student)
        codes: dict[str, Codes] = {}
        masks: dict[str, Tensor] = {}
        if row.quantized and isinstance(source, PackedSource):
            codes = {name: source.codes(name) for name in source.grids}
        else:
            masks = self._masks(whole)
        return row.learner(LoadedStudent(whole, graph, masks, codes, self._how, seed))

    def _masks(self, whole: Any) -> dict[str, Tensor]:
        found = {
            linear.tensor: mask_of(linear.tensor, whole.get_parameter(linear.tensor), block, self._plan)
            for block in self._student.graph.blocks
            for linear in block.linears
        }
        return {name: mask for name, mask in found.items() if mask is not None}
