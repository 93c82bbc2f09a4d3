"""Measure what a model can do: the tasks of lm-eval, on any model that can be opened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from secateur.core.context import Arithmetic
from secateur.core.progress import Progress, Silent
from secateur.core.scorer import Scorer
from secateur.measure.task_scores import TaskScore, require_lm_eval
from secateur.model.full_model import load_whole
from secateur.model.handle import open_registered
from secateur.model.written.plan_file import plan_digest
from secateur.runtime.token_scorer import TorchScorer
from secateur.tensors.precision import arithmetic
from secateur_runtime.errors import UsageError
from secateur_runtime.record import Record


@dataclass(frozen=True, slots=True)
class TaskResult:
    """Scores of one model. digest: of its weights; plan: digest of the plan it was pruned by, or empty."""

    model: str
    digest: str
    plan: str
    scores: tuple[TaskScore, ...]

    def __getitem__(self, task: str) -> TaskScore:
        for score in self.scores:
            if score.task == task:
                return score
        raise UsageError(
            f"{task} was not measured; these were: {', '.join(score.task for score in self.scores)}"
        )

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
) -> TaskResult:
    """Measure `tasks` of lm-eval, as its own command does, on the model `src`.

    limit: items of each task; all if not given. shots: solved examples before each item; the task's own
    number if not given.
    datasets: folder laid out like the hub that holds the data. scorer: what answers instead of `src` loaded
    in torch; its
        tokens are those of `src`.

    Raises MissingExtraError without lm-eval, UsageError for an unknown task, TextError for data that cannot
    be read.
    """
    require_lm_eval("--tasks")
    from secateur.measure.lm_eval_model import LmEvalModel, run
    from secateur.measure.lm_eval_tasks import load_tasks

    progress = progress or Silent()
    model = open_registered(src)
    loaded = load_tasks(tasks, Path(datasets) if datasets else None)
    with arithmetic(compute):
        harness = LmEvalModel(scorer or TorchScorer(load_whole(model)), model.source.tokenizer(), progress)
        scores, _ = run(loaded, harness, limit=limit, shots=shots)
    return TaskResult(src, model.digest, plan_digest(model), tuple(scores))
