"""From a pruned model and its dense teacher to a model that lost less: written, reloaded, compared and judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from torch import Tensor

from secateur.core.progress import Progress
from secateur.export.card import origin
from secateur.export.recovered import CARD, Recovery, recovered_card
from secateur.measure.perplexity import Quality
from secateur.model.arithmetic import arithmetic
from secateur.model.checkpoint import writing
from secateur.model.opened import Opened, open_model
from secateur.pipeline.calibration import Calibration, calibration_tokens, provenance
from secateur.pipeline.judge import Judge
from secateur.pipeline.local import Local, LocalPass
from secateur.pipeline.pairing import check_masks, check_tokenizers, plan_beside
from secateur.pipeline.reload import accept, difference, last_states
from secateur.pipeline.rewrite import Rewrite
from secateur.pipeline.run import Settings
from secateur.transform.rounding import storage_type

How = Local


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a recovery made.

    before, after: quality on held-out windows of the calibration text, divergence from the teacher included.
    changed: halves of blocks that are not as they were; none if the result was no better, and then the start was written.
    resumed_blocks: how many a killed run had finished.
    reload_difference: largest difference between the reloaded folder's last hidden states and those of the run, relative.
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


def recover(student: Opened, teacher: Opened, how: How, calibration: Calibration, out: Path, *, seed: int, settings: Settings, progress: Progress) -> Recovered:
    """Train `student` towards `teacher` and write the folder `out`, going on where the same run was killed.

    Raises UsageError for a teacher that is not one of this student, PlanError for a mask that its plan does not give it,
    TextError if the text is too short, VerificationError if the folder does not compute what was meant; then nothing is left.
    """
    how.check()
    check_tokenizers(student, teacher)
    plan = plan_beside(student.source.ref)
    check_masks(student, plan)
    tokens = calibration_tokens(teacher, calibration, seed)
    held = tokens[-how.course(*tokens.shape).held :]
    dtype, kind = storage_type(settings.dtype, student.graph.tensors), settings.arithmetic or "bfloat16"
    said = {"method": "local", **{name: str(value) for name, value in asdict(how).items()}, "seed": str(seed), **provenance(calibration, tokens)}
    job = {"student": student.digest, "teacher": teacher.digest, "dtype": str(dtype), "arithmetic": kind, "secateur": version("secateur"), **said}
    with arithmetic(kind), writing(out, job, len(student.graph.blocks) + 1, overwrite=settings.overwrite) as checkpoint:
        rewrite = Rewrite(student, checkpoint, dtype)
        judge = Judge(teacher.stream(), held, progress)
        before = judge(student.stream(outside=dtype))
        after, changed, found = before, 0, 0.0
        if not rewrite.reverting:
            run = LocalPass(student, teacher, plan, how, rewrite)
            meant = run.run(tokens, seed=seed, memory=settings.memory, progress=progress)
            rewrite.finish(teacher, said)
            found, changed = _reload(rewrite.folder, tokens, meant), run.changed
            after = judge(open_model(str(rewrite.folder)).stream())
        if not (after.kl or 0.0) < (before.kl or 0.0):
            progress.note("no better on held-out text: the weights stay as they were")
            rewrite.revert()
            rewrite.finish(teacher, said)
            after, changed, found = before, 0, 0.0
        size = sum(path.stat().st_size for path in rewrite.folder.glob("*.safetensors"))
        made = Recovered(out, said["method"], before, after, changed, student.graph.parameters, size, rewrite.resumed, found)
        _write_card(student, teacher, rewrite.folder, made, said)
        checkpoint.publish()
    return made


def _reload(folder: Path, tokens: Tensor, meant: Tensor) -> float:
    """Run `tokens` through the written folder; return how far its last states are from `meant`, relative to the largest value."""
    found = difference(last_states(open_model(str(folder)).stream(), tokens[: len(meant)]), meant)
    accept(found)
    return found


def _write_card(student: Opened, teacher: Opened, folder: Path, made: Recovered, said: Mapping[str, str]) -> None:
    card, before, after = Path(student.source.ref).expanduser() / CARD, made.before, made.after
    known = {key: text for key, text in said.items() if key != "calibration"}
    facts = Recovery(
        name=Path(student.source.ref).name,
        teacher=f"{Path(teacher.source.ref).name}, digest `{teacher.digest}`",
        said={**known, "text": origin(said["calibration"])},
        kl=(before.kl or 0.0, after.kl or 0.0),
        nll=(before.nll, after.nll),
        difference=made.reload_difference,
    )
    (folder / CARD).write_text(recovered_card(card.read_text(encoding="utf-8") if card.is_file() else "", facts), encoding="utf-8")
