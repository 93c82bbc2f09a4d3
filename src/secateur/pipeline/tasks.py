"""Measure what a model can do: the tasks of lm-eval, on any model that can be opened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from secateur.core.errors import UsageError
from secateur.core.plan import Plan
from secateur.core.progress import Progress, Silent
from secateur.core.record import Record
from secateur.core.scoring import Scorer
from secateur.measure.tasks import TaskScore, require_lm_eval
from secateur.model.arithmetic import Arithmetic, arithmetic
from secateur.model.opened import Opened
from secateur.model.whole import load_whole
from secateur.pipeline.export_gguf import open_registered
from secateur.runtime.scoring import TorchScorer


@dataclass(frozen=True, slots=True)
class Tasked:
    """Scores of one model. digest: of its weights; plan: digest of the plan it was pruned by, or empty."""

    model: str
    digest: str
    plan: str
    scores: tuple[TaskScore, ...]

    def __getitem__(self, task: str) -> TaskScore:
        for score in self.scores:
            if score.task == task:
                return score
        raise UsageError(f"{task} was not measured; these were: {', '.join(score.task for score in self.scores)}")

    def records(self) -> list[Record]:
        """Return every figure as a record."""
        return [record for score in self.scores for record in score.records(self.digest, self.plan)]


def evaluate_tasks(
    src: str,
    tasks: Sequence[str],
    *,
    limit: int | None = None,
    shots: int | None = None,
    datasets: str | Path | None = None,
    compute: Arithmetic = "float32",
    scorer: Scorer | None = None,
    progress: Progress | None = None,
) -> Tasked:
    """Measure `tasks` of lm-eval, as its own command does, on the model `src`.

    limit: items of each task; all if not given. shots: solved examples before each item; the task's own number if not given.
    datasets: folder laid out like the hub that holds the data. scorer: what answers instead of `src` loaded in torch; its
        tokens are those of `src`.

    Raises MissingExtraError without lm-eval, UsageError for an unknown task, TextError for data that cannot be read.
    """
    require_lm_eval("--tasks")
    from secateur.measure.harness import Judge, run
    from secateur.measure.library import load_tasks

    progress = progress or Silent()
    model = open_registered(src)
    loaded = load_tasks(tasks, Path(datasets) if datasets else None)
    with arithmetic(compute):
        judge = Judge(scorer or TorchScorer(load_whole(model)), model.source.tokenizer(), progress)
        scores, _ = run(loaded, judge, limit=limit, shots=shots)
    return Tasked(src, model.digest, plan_digest(model), tuple(scores))


def plan_digest(model: Opened) -> str:
    """Return the digest of the plan beside the weights, or nothing where there is none."""
    path = Path(model.source.ref) / "plan.json"
    return Plan.from_json(path.read_text(encoding="utf-8")).digest() if path.is_file() else ""
