"""The interface to lm-eval: any Scorer as one of its models, with its own task definitions, unchanged.

Importing this needs lm-eval.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any

import lm_eval.api.task
import tqdm
from lm_eval.api.model import TemplateLM
from lm_eval.defaults import DEFAULT_OTHER_SEED
from lm_eval.evaluator import evaluate
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from secateur.core.progress import Progress
from secateur.core.scorer import Scorer, ScoreRequest
from secateur.measure.lm_eval_tasks import hushed, replaced
from secateur.measure.task_scores import CHOICES, OTHER, WORDS, Metric, TaskScore, items_of
from secateur_runtime.errors import UsageError

_BOOTSTRAP = 100_000
"""Draws for a standard error that has no formula, as in lm-eval's own command."""


def run(
    loaded: dict[str, Any], model: LmEvalModel, *, limit: int | None = None, shots: int | None = None
) -> tuple[list[TaskScore], dict[str, list[Mapping[str, Any]]]]:
    """Return the scores of loaded tasks and groups, and the items of each task as the data has them.

    limit: items of each task, from the first. shots: solved examples before each; tasks that fix their number
    keep it.
    """
    with _undisturbed(), hushed():
        for name, task in loaded["tasks"].items():
            _set_shots(name, task, shots)
        found = evaluate(model, loaded, limit=limit, log_samples=True, bootstrap_iters=_BOOTSTRAP)
    samples: dict[str, list[Any]] = found["samples"]
    scores = [_score(name, row, found, loaded) for name, row in found["results"].items()]
    return scores, {name: [row["doc"] for row in rows] for name, rows in samples.items()}


def _set_shots(name: str, task: Any, shots: int | None) -> None:
    # What lm-eval's own command does between loading and evaluating.
    own = task.get_config("num_fewshot")
    task.set_config(key="num_fewshot", value=(own or 0) if shots is None or own == 0 else shots)
    task.set_fewshot_seed(seed=DEFAULT_OTHER_SEED)
    wanted = task.get_config("num_fewshot")
    if wanted and wanted >= (there := len(list(task.fewshot_docs()))):
        raise UsageError(f"task {name} has {there} solved examples, too few for --few-shot {wanted}")


def _score(
    name: str, row: Mapping[str, Any], found: Mapping[str, Any], loaded: Mapping[str, Any]
) -> TaskScore:
    leaves = _leaves(name, loaded["group_map"])
    kinds = {_kind(loaded["tasks"][leaf]) for leaf in leaves}
    counts = [found["n-samples"][leaf] for leaf in leaves]
    metrics = []
    for key, value in row.items():
        metric, comma, kept = key.partition(",")
        if comma and not metric.endswith("_stderr") and isinstance(value, int | float):
            error = row.get(f"{metric}_stderr,{kept}")
            items = items_of(
                [sample for sample in found["samples"].get(name, []) if sample["filter"] == kept],
                metric,
                value,
            )
            better = bool(found["higher_is_better"].get(name, {}).get(metric, True))
            metrics.append(
                Metric(
                    metric if kept == "none" else key,
                    float(value),
                    float(error) if isinstance(error, int | float) else None,
                    better,
                    items,
                )
            )
    return TaskScore(
        task=name,
        kind=kinds.pop() if len(kinds) == 1 else OTHER,
        metrics=tuple(metrics),
        items=sum(count["effective"] for count in counts),
        available=sum(count["original"] for count in counts),
        shots=max(found["n-shot"][leaf] for leaf in leaves),
        version=str(found["versions"].get(name)),
    )


def _leaves(name: str, groups: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the tasks in a group, or the task itself."""
    return [leaf for child in groups[name] for leaf in _leaves(child, groups)] if name in groups else [name]


def _kind(task: Any) -> str:
    if task.OUTPUT_TYPE in ("loglikelihood", "loglikelihood_rolling"):
        return WORDS
    return CHOICES if any(metric.startswith("acc") for metric in task.aggregation()) else OTHER


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Keep lm-eval's progress bars and prints off the terminal, and its bootstrap in this process.

    The bootstrap gives the same figures in one process as in several.
    """
    with (
        open(os.devnull, "w") as nowhere,
        redirect_stdout(nowhere),
        replaced(lm_eval.api.task, "tqdm", _without_bar),
        replaced(tqdm, "tqdm", _without_bar),
        _variable("DISABLE_MULTIPROC", "1"),
    ):
        yield


def _without_bar(rows: Any, **_: Any) -> Any:
    return rows


@contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    """Set an environment variable until exit."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


class LmEvalModel(TemplateLM):  # type: ignore[misc]
    """A Scorer with its tokenizer, as lm-eval wants a model.

    Text becomes tokens as in lm-eval's own class for transformers.
    """

    def __init__(self, scorer: Scorer, tokenizer: Any, progress: Progress) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self._scorer = scorer
        self._progress = progress

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        """The token that an empty context stands for."""
        first = self.tokenizer.bos_token_id
        return self.eot_token_id if first is None else int(first)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Return the token ids of `string`.

        add_special_tokens: None adds them unless the text begins with the prefix token already.
        """
        if add_special_tokens is None:
            add_special_tokens = not string.startswith(self.tokenizer.decode(self.prefix_token_id))
        return list(self.tokenizer.encode(string, add_special_tokens=add_special_tokens, verbose=False))

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """Answer requests `(context, continuation)`."""
        found: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=True)
        return found

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = True) -> list[float]:
        """Return the log-probability of whole texts, nats.

        They are read in windows of the longest context, and each token is predicted once.
        """
        texts = [self.tok_encode(text) for (text,) in (request.args for request in requests)]
        windows = [
            list(
                map(
                    make_disjoint_window,
                    get_rolling_token_windows(ids, self.prefix_token_id, self._scorer.context, 1),
                )
            )
            for ids in texts
        ]
        scores = iter(self._scored([pair for pairs in windows for pair in pairs]))
        return [sum(next(scores)[0] for _ in pairs) for pairs in windows]

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = True) -> list[str]:
        """Refuse: a Scorer writes no text."""
        raise UsageError(
            "tasks that judge written answers need a model that writes: choose tasks of log-probabilities"
        )

    def _loglikelihood_tokens(self, requests: Sequence[Any], **_: Any) -> list[tuple[float, bool]]:
        return self._scored([(context, tokens) for _, context, tokens in requests])

    def _scored(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[tuple[float, bool]]:
        rows = [self._asked(context, tokens) for context, tokens in pairs]
        self._progress.start("score", len(rows))
        return [(answer.logprob, answer.greedy) for answer in self._scorer.score(rows, self._progress)]

    def _asked(self, context: list[int], tokens: list[int]) -> ScoreRequest:
        """Return the row, its context cut from the left to what the model can read."""
        longest = self._scorer.context + 1 - len(tokens)
        if longest < 1 or not tokens:
            raise UsageError(
                f"a task asks for {len(tokens)} tokens at once, and the model reads {self._scorer.context}"
            )
        return ScoreRequest(tuple(context[-longest:]), tuple(tokens))
