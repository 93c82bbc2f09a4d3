"""Local reconstruction: train a pruned model block by block against its dense teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from secateur.calibrate.calibration import held_out
from secateur.calibrate.gradients import gradients
from secateur.calibrate.input_statistics import HiddenStates
from secateur.core.context import RunContext
from secateur.core.graph import Linear
from secateur.core.plan import Plan
from secateur.core.progress import Progress
from secateur.model.handle import ModelHandle
from secateur.model.written.reload_check import reloaded_difference
from secateur.pipeline.prune.depth.gap_repair import SubBlock
from secateur.pipeline.prune.plan_masks import mask_of
from secateur.pipeline.recover.layer_mapping import damaged, pair
from secateur.pipeline.recover.weight_writer import Rewrite
from secateur.tensors.layer_stream import LiveBlock, alone, sub_blocks
from secateur.tensors.precision import mixed
from secateur.train import training_state
from secateur.train.block_reconstruction import Aim, Course, reconstruct
from secateur.train.error_metric import metric_root
from secateur_runtime.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Local:
    """Train one sub-block at a time to give what the dense model's sub-block gives.

    Where most were cut, the others are left alone.

    steps: of Adam for each sub-block; what is left alone leaves its steps to the others. batch: tokens in
    each.
    rate: highest learning rate, relative to the root mean square of the weights.
    dense: what is aimed for: 0 is what the teacher's sub-block makes of the student's own states, 1 the
    teacher's own states.
    weighed: windows of text from which is learned what an error in each direction does to the teacher's
    predictions; 0 counts all alike.
    held: share of the calibration windows that nothing is learned from and that decide whether a change
    stays.
    """

    steps: int = 54
    batch: int = 512
    rate: float = 0.0175
    dense: float = 1.0
    weighed: int = 4
    held: float = 0.125

    @property
    def method(self) -> str:
        """What it is called on the command line."""
        return "local"

    @property
    def samples(self) -> int:
        """Windows of text that it is made for."""
        return 64

    def check(self) -> None:
        """Raise UsageError for values that cannot work."""
        if self.steps < 1 or self.batch < 1 or not self.rate > 0:
            raise UsageError(
                f"--steps {self.steps}, --batch {self.batch} and --rate {self.rate} must all be above 0"
            )
        if not 0 <= self.dense <= 1 or not 0 < self.held < 1 or self.weighed < 0:
            raise UsageError(
                f"dense {self.dense} must be from 0 to 1, held {self.held} between them, and weighed"
                f" {self.weighed} not below 0"
            )

    def course(self, windows: int, length: int, more: float = 1.0) -> Course:
        """Return how a sub-block is trained on so many windows of so many tokens, in so many times the steps.

        Raises TextError if none is left to learn from.
        """
        return Course(
            steps=round(self.steps * more),
            batch=max(1, self.batch // length),
            rate=self.rate,
            held=held_out(windows, self.held),
        )


class LocalPass:
    """One pass over the blocks."""

    def __init__(
        self, student: ModelHandle, teacher: ModelHandle, plan: Plan | None, local: Local, rewrite: Rewrite
    ) -> None:
        self._student = student
        self._plan = plan
        self._local = local
        self._rewrite = rewrite
        self._pairing = pair(student, teacher, plan)
        cut = damaged(student, teacher, self._pairing)
        every = frozenset(self._pairing.sub_blocks)
        # Where little was cut, as by depth, the whole sub-blocks have the most to gain from the shift of
        # their inputs.
        self._learning = cut if 2 * len(cut) >= len(every) else every
        self._whole = teacher.stream()
        self._metrics = rewrite.folder / "model-metrics.safetensors"
        self._meant = torch.empty(0)

    def run(self, tokens: Tensor, context: RunContext) -> None:
        """Train, write and run every block; the last windows are held out.

        tokens: ids `[windows, length]`.
        """
        progress = context.progress
        stream = self._student.stream(outside=self._rewrite.dtype)
        embedded = partial(
            HiddenStates, tokens=tokens, budget=context.settings.memory, folder=self._rewrite.folder
        )
        if not self._rewrite.finished:
            self._rewrite.write(0, {})
        if self._rewrite.resumed < len(stream):
            self._weigh(tokens[: self._local.weighed], progress)
        hidden = embedded(stream)
        dense = embedded(self._whole) if self._local.dense else None
        windows, length = tokens.shape
        course = self._local.course(windows, length, len(self._pairing.sub_blocks) / len(self._learning))
        progress.start("reconstruct", len(stream), self._rewrite.resumed)
        for index in range(len(stream)):
            with stream.open(index) as live:
                if index < self._rewrite.resumed:
                    self._restore(live)
                for part, _ in sub_blocks(live.block):
                    with alone(live, part):
                        self._train(
                            live,
                            part,
                            hidden,
                            dense,
                            course if index >= self._rewrite.resumed else None,
                            context.seed,
                        )
                if index >= self._rewrite.resumed:
                    self._rewrite.write(index + 1, {name: live.weight(name) for name in live.block.tensors})
                    progress.step(f"block {index}")
        self._meant = next(hidden.batches()).clone()
        self._metrics.unlink(missing_ok=True)

    def _weigh(self, tokens: Tensor, progress: Progress) -> None:
        """Note what errors of the teacher's states do to its predictions, unless that is noted already."""
        if len(tokens) and not self._metrics.exists():
            found = gradients(
                self._whole, tokens, fisher=True, folder=self._rewrite.folder, progress=progress
            )
            training_state.save(
                self._metrics,
                {f"{block.index}.{part}": fisher for block in found for part, fisher in block.fisher.items()},
                {},
            )

    def _metric(self, sub_block: SubBlock) -> Tensor | None:
        """Return the factor of errors behind a sub-block of the teacher, for the student's channels."""
        if not self._local.weighed:
            return None
        fisher = training_state.read(self._metrics, f"{sub_block[0]}.{sub_block[1]}")
        channels = self._pairing.channels
        return metric_root(fisher if channels is None else fisher[channels][:, channels])

    def compare(self, tokens: Tensor) -> float:
        """Return how far the last states of the written folder are from those of the run."""
        return reloaded_difference(self._rewrite.folder, tokens, self._meant)

    def _train(
        self,
        live: LiveBlock,
        part: str,
        hidden: HiddenStates,
        dense: HiddenStates | None,
        course: Course | None,
        seed: int,
    ) -> None:
        """Train a sub-block, unless there is no course, and run it."""
        behind = self._pairing.sub_blocks.get((live.block.index, part))
        if behind is None:
            return
        if dense:
            self._advance(dense, behind)
        if course and (live.block.index, part) in self._learning:
            aim = Aim(self._targets(hidden, dense, behind), self._metric(behind[-1]))
            masks = {
                linear.tensor: mask_of(linear.tensor, live.weight(linear.tensor), live.block, self._plan)
                for linear in _linears(live, part)
            }
            masks |= {
                bias: None
                for name in list(masks)
                if (bias := name.removesuffix("weight") + "bias") in live.block.tensors
            }
            for name in live.block.halves[part]:
                live.weight(name).copy_(live.weight(name).to(self._rewrite.dtype))
            reconstruct(live, masks, hidden.states, aim, course, self._rewrite.dtype, seed)
        hidden.advance(live)

    def _targets(
        self, hidden: HiddenStates, dense: HiddenStates | None, behind: Sequence[SubBlock]
    ) -> Tensor:
        """Return what a sub-block should give.

        What the teacher makes of the student's states, mixed with the teacher's own states there.
        """
        share = self._local.dense
        channels = self._pairing.channels
        if dense and share == 1:
            return _narrowed(dense.states, channels)
        reached = hidden.twin() if channels is None else hidden.among(channels, self._whole.hidden_size)
        self._advance(reached, behind)
        targets = _narrowed(reached.states, channels)
        return targets.lerp_(_narrowed(dense.states, channels), share) if dense else targets

    def _advance(self, states: HiddenStates, chain: Sequence[SubBlock]) -> None:
        for index, part in chain:
            # What the teacher makes of a state is only aimed for, so it may cost as little as a step of
            # training.
            with self._whole.open(index) as live, alone(live, part), mixed():
                states.advance(live)

    def _restore(self, live: LiveBlock) -> None:
        for name, tensor in self._rewrite.read(live.block.index + 1).items():
            live.weight(name).copy_(tensor)


def _linears(live: LiveBlock, part: str) -> list[Linear]:
    return [linear for linear in live.block.linears if linear.tensor in live.block.halves[part]]


def _narrowed(states: Tensor, channels: Tensor | None) -> Tensor:
    return states if channels is None else states.index_select(-1, channels)
