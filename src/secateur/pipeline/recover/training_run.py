"""Run one recovery: train, write, reload, compare; keep the result only if held-out text prefers it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from secateur.calibrate.calibration import Calibration, calibration_tokens, held_out, text_of
from secateur.core.context import Arithmetic, RunContext
from secateur.core.execution import CalibrationText
from secateur.core.plan import Plan
from secateur.core.progress import Silent
from secateur.export.cards.pruned_card import origin
from secateur.export.cards.recovered_card import Recovery, recovered_card
from secateur.measure.perplexity import Quality
from secateur.model.formats.compressed_tensors import PackedSource
from secateur.model.formats.quantized_source import CodedSource
from secateur.model.handle import ModelHandle, open_model
from secateur.model.written.checkpoint import Checkpoint, writing
from secateur.model.written.folder_writer import FolderWriter
from secateur.model.written.plan_file import plan_beside
from secateur.model.written.reload_check import accept
from secateur.pipeline.prune.plan_masks import check_masks
from secateur.pipeline.recover.accelerate_processes import is_first_process, share
from secateur.pipeline.recover.distill import Distill, Turn, WholeRun
from secateur.pipeline.recover.gradual_pruning import grown
from secateur.pipeline.recover.held_out_quality import HeldOutQuality
from secateur.pipeline.recover.layer_mapping import check_tokenizers
from secateur.pipeline.recover.methods import RECOVERIES, RecoverOptions, RecoveryMethod
from secateur.pipeline.recover.weight_writer import Rewrite
from secateur.tensors.precision import arithmetic
from secateur.tensors.storage_dtype import storage_type
from secateur.train.trainer import Trained
from secateur_runtime.errors import UsageError


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a recovery made.

    before, after: quality on held-out windows of the calibration text, divergence from the teacher included.
    changed: sub-blocks that are not as they were; none if the result was no better, and then the start was
    written.
    resumed_blocks: how many a killed run had finished. trained: how the training of a whole model went.
    reload_difference: largest difference between what the reloaded folder computes and what was meant,
    relative to the largest value.
    """

    out: Path
    method: str
    before: Quality
    after: Quality
    changed: int
    parameters: int
    bytes: int
    resumed_blocks: int
    reload_difference: float
    trained: Trained | None = None


def prepare_recovery(
    student: ModelHandle,
    teacher: ModelHandle,
    how: RecoverOptions,
    calibration: Calibration,
    context: RunContext,
    turn: Turn | None = None,
) -> RecoveryJob:
    """Return the checked job that trains `student` towards `teacher`.

    turn: for a caller who trains several students on the same text.

    Raises UsageError for a teacher that is not one of this student or a method that is not for it, PlanError
    for a mask that its plan does not give it, TextError if the text is too short.
    """
    how.check()
    method = RECOVERIES[how.method]
    _check_grids(student, method)
    check_tokenizers(student, teacher)
    plan = plan_beside(student.source.ref)
    check_masks(student, plan)
    if method.view is not None:
        student = method.view(student)
    tokens = calibration_tokens(teacher, calibration, context.seed)
    text = text_of(calibration, tokens)
    return RecoveryJob(student, teacher, how, plan, tokens, text, context, turn)


def run_recovery(job: RecoveryJob, out: Path) -> Recovered:
    """Train and write the folder `out`, continuing where the same run was killed.

    Raises VerificationError if the folder does not compute what was meant; nothing is left then.
    """
    student = job.student
    teacher = job.teacher
    how = job.how
    tokens = job.tokens
    held = tokens[-held_out(len(tokens), how.held) :]
    if isinstance(how, Distill) and not is_first_process():
        return job.follow(how, out)
    with (
        arithmetic(job.kind),
        writing(
            out, job.note(), len(student.graph.blocks) + 1, overwrite=job.context.settings.overwrite
        ) as checkpoint,
    ):
        rewrite = Rewrite(student, checkpoint, job.dtype)
        quality = HeldOutQuality(teacher.stream(), held, job.context.progress)
        before = quality(student.stream(outside=job.dtype))
        after = before
        changed = 0
        found = 0.0
        trained = None
        if not rewrite.reverting:
            found, trained = job.run(rewrite)
            after = quality(open_model(str(rewrite.folder)).stream())
            changed = rewrite.changed()
        prunes = isinstance(how, Distill) and how.sparsity is not None
        if not prunes and not (after.kl or 0.0) < (before.kl or 0.0):
            job.context.progress.note("no better on held-out text: the weights stay as they were")
            rewrite.revert()
            rewrite.finish(teacher, job.said, job.plan)
            after = before
            changed = 0
            found = 0.0
        size = rewrite.writer.weight_bytes()
        made = Recovered(
            out,
            how.method,
            before,
            after,
            changed,
            student.graph.parameters,
            size,
            rewrite.resumed,
            found,
            trained,
        )
        _write_card(rewrite.writer, teacher, made, job.said)
        checkpoint.publish()
    if isinstance(how, Distill):
        share(made)
    return made


def _check_grids(student: ModelHandle, method: RecoveryMethod) -> None:
    """Raise UsageError unless a quantized student meets a method for such ones, and no other student does."""
    if method.quantized and not isinstance(student.source, PackedSource):
        raise UsageError(
            f"--method {method.name} trains a model that `secateur quantize` wrote, and {student.source.ref}"
            " is not quantized so: quantize it first"
        )
    if isinstance(student.source, CodedSource) and student.source.grids and not method.quantized:
        able = " or ".join(name for name, row in RECOVERIES.items() if row.quantized)
        raise UsageError(
            f"{student.source.ref} is quantized: --method {able} is the one that keeps it so; train other"
            " weights before you quantize"
        )


@dataclass(frozen=True)
class RecoveryJob:
    """Everything that decides what a recovery makes."""

    student: ModelHandle
    teacher: ModelHandle
    how: RecoverOptions
    plan: Plan | None
    tokens: Tensor
    text: CalibrationText
    context: RunContext
    turn: Turn | None

    @property
    def kind(self) -> Arithmetic:
        """In which arithmetic it runs."""
        return self.context.settings.arithmetic or "bfloat16"

    @property
    def dtype(self) -> torch.dtype:
        """The type that weights are stored in."""
        source = self.student.source
        quantized = source.grids if isinstance(source, CodedSource) else {}
        return storage_type(
            self.context.settings.dtype,
            {name: info for name, info in source.tensors.items() if name not in quantized},
        )

    @property
    def said(self) -> dict[str, str]:
        """What the folder says about how it came about."""
        return {
            "method": self.how.method,
            **{name: str(value) for name, value in asdict(self.how).items()},
            "seed": str(self.context.seed),
            **self.text.facts,
        }

    def note(self) -> dict[str, str]:
        """Return what two runs must have in common for one to continue where the other was killed."""
        models = {
            "student": self.student.digest,
            "teacher": self.teacher.digest,
            "dtype": str(self.dtype),
            "arithmetic": self.kind,
        }
        return {**models, "secateur": version("secateur"), **self.said}

    def run(self, rewrite: Rewrite) -> tuple[float, Trained | None]:
        """Train and write; return how far the reloaded folder is from what was meant, and how it went."""
        start = RECOVERIES[self.how.method].start
        if start is not None:
            passed = start(self, rewrite)
            passed.run(self.tokens, self.context)
            rewrite.finish(self.teacher, self.said, self.plan)
            found = passed.compare(self.tokens)
            trained = None
        else:
            assert isinstance(self.how, Distill)
            whole = WholeRun(
                self.student, self.teacher, self.plan, self.how, rewrite.folder, self.kind, self.turn
            )
            whole.run(self.tokens, self.context)
            whole.write(rewrite)
            zeros = self.how.sparsity
            plan = (
                self.plan
                if zeros is None
                else grown(self.student, self.how.criterion, zeros, self.text, self.context.seed)
            )
            rewrite.finish(self.teacher, self.said, plan)
            found = whole.compare(rewrite, self.tokens)
            trained = whole.trained
        accept(found)
        return found, trained

    def follow(self, how: Distill, out: Path) -> Recovered:
        """Take part in a training that the first process of several leads; return what that one made."""
        with arithmetic(self.kind):
            folder = Checkpoint(out, len(self.student.graph.blocks) + 1).partial
            WholeRun(self.student, self.teacher, self.plan, how, folder, self.kind).run(
                self.tokens, replace(self.context, progress=Silent())
            )
        made: Recovered = share(None)
        return made


def _write_card(writer: FolderWriter, teacher: ModelHandle, made: Recovered, said: Mapping[str, str]) -> None:
    before = made.before
    after = made.after
    known = {key: text for key, text in said.items() if key != "calibration"}
    facts = Recovery(
        name=Path(writer.model.source.ref).name,
        teacher=f"{Path(teacher.source.ref).name}, digest `{teacher.digest}`",
        said={**known, "text": origin(said["calibration"])},
        kl=(before.kl or 0.0, after.kl or 0.0),
        nll=(before.nll, after.nll),
        difference=made.reload_difference,
    )
    writer.write_card(recovered_card(writer.earlier_card(), facts))
