"""Iterative pruning: width removed in stages, each followed by distillation."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

from secateur.calibrate.calibration import Calibration
from secateur.core.context import RunContext
from secateur.model.handle import ModelHandle, open_model
from secateur.pipeline.prune.apply import execute
from secateur.pipeline.prune.width.decide import Width, decide_width
from secateur.pipeline.recover.accelerate_processes import processes
from secateur.pipeline.recover.distill import Distill, Turn
from secateur.pipeline.recover.training_run import Recovered, prepare_recovery, run_recovery
from secateur_runtime.errors import UsageError
from secateur_runtime.files import claimed, refuse_existing


@dataclass(frozen=True, slots=True, kw_only=True)
class Interleaved:
    """Narrow a dense model in equal stages, training after each, as Adapt-Pruner does (arXiv:2502.03460).

    width: what goes in all, by its `ratio`; Adapt-Pruner spreads it by how much each block turns its states
    (`allocation="adapt"`).
    distill: how each stage is trained; its steps are divided among the stages.
    """

    width: Width = field(default_factory=lambda: Width(ratio=0.2, allocation="adapt"))
    distill: Distill = field(default_factory=lambda: Distill(schedule="wsd"))
    stages: int = 5

    @property
    def samples(self) -> int:
        """Windows of text that it is made for."""
        return self.distill.samples

    def check(self) -> None:
        """Raise UsageError for values that cannot work."""
        self.width.check()
        self.distill.check()
        if self.width.ratio is None or self.stages < 2:
            raise UsageError(
                "pruning and training in turns needs a ratio of units that go, and at least 2 stages"
            )
        if processes() > 1:
            raise UsageError(
                "pruning and training in turns runs in one process: start it without `accelerate launch`"
            )

    def stage(self) -> tuple[Width, Distill]:
        """Return what each stage removes, as a share of what the one before left, and how it is trained."""
        ratio = 1 - (1 - (self.width.ratio or 0.0)) ** (1 / self.stages)
        return replace(self.width, ratio=ratio), replace(
            self.distill, steps=max(1, round(self.distill.steps / self.stages))
        )


def interleave(
    src: str, teacher: str, how: Interleaved, text: Calibration, out: Path, context: RunContext
) -> Recovered:
    """Narrow and train the model `src` in turns and write the folder `out`.

    A killed run continues where it stopped; unfinished stages lie in `OUT.stages`.
    Raises what `prune` and `recover` raise, OutputError if the stages of another run are in the way.
    """
    how.check()
    refuse_existing(out, overwrite=context.settings.overwrite)
    width, distill = how.stage()
    folder = out.with_name(out.name + ".stages")
    model = open_model(src)
    whole = open_model(teacher)
    job = {
        "model": model.digest,
        "teacher": whole.digest,
        "how": repr(how),
        "text": repr(text),
        "seed": context.seed,
    }
    job |= {"dtype": context.settings.dtype, "secateur": version("secateur")}

    def train(stage: int, into: Path) -> Recovered:
        narrow = _narrowed(model, width, text, folder / f"{stage:02d}-narrowed", context)
        turn = Turn(folder / "teacher.safetensors", (stage - 1) * distill.steps)
        training = prepare_recovery(narrow, whole, distill, text, context, turn)
        return run_recovery(training, into)

    with claimed(folder, out, job, overwrite=context.settings.overwrite, keep=True):
        for stage in range(1, how.stages):
            trained = folder / f"{stage:02d}-trained"
            if not trained.exists():
                train(stage, trained)
            model = open_model(str(trained))
        made = train(how.stages, out)
        shutil.rmtree(folder)
    return made


def _narrowed(
    model: ModelHandle, width: Width, text: Calibration, out: Path, context: RunContext
) -> ModelHandle:
    """Return the model of a stage before it is trained, made now or by a run that was killed."""
    if not out.exists():
        execute(model, decide_width(model, width, text, context), out, context)
    return open_model(str(out))
