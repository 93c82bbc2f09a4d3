"""Scores of tasks against lm-eval's own class for transformers, and a Scorer as lm-eval asks it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.conftest import Maker

from secateur.core.progress import Progress, Silent
from secateur.core.scorer import Scored, ScoreRequest
from secateur.pipeline.evaluate.tasks import evaluate_tasks
from secateur_runtime.errors import UsageError

pytest.importorskip("lm_eval")


TASKS = ["arc_easy", "openbookqa", "lambada_openai", "wikitext"]


def _lm_eval(folder: Path, mirror: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> dict[str, Any]:
    """What `lm_eval --model hf --model_args pretrained=FOLDER` gives in the mirror."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    from secateur.measure.lm_eval_tasks import _manager

    monkeypatch.chdir(mirror)
    model = HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=1)
    results = lm_eval.simple_evaluate(
        model, tasks=TASKS, task_manager=_manager(TASKS), bootstrap_iters=100000, **options
    )
    assert results
    found: dict[str, Any] = results["results"]
    return found


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(("limit", "shots"), [(None, None), (4, 2)])
def test_scores_equal_lm_evals_own(
    tiny: Maker, mirror: Path, monkeypatch: pytest.MonkeyPatch, limit: int | None, shots: int | None
) -> None:
    folder = tiny("llama")
    found = evaluate_tasks(str(folder), TASKS, datasets=mirror, limit=limit, shots=shots)
    monkeypatch.setenv("DISABLE_MULTIPROC", "1")
    expected = _lm_eval(folder, mirror, monkeypatch, limit=limit, num_fewshot=shots)
    for score in found.scores:
        for metric in score.metrics:
            theirs, error = (
                expected[score.task][f"{metric.name},none"],
                expected[score.task][f"{metric.name}_stderr,none"],
            )
            exact = metric.name.startswith("acc")
            assert metric.value == (theirs if exact else pytest.approx(theirs, rel=1e-5)), (
                score.task,
                metric.name,
            )
            assert metric.error == (
                None if error == "N/A" else error if exact else pytest.approx(error, rel=1e-4)
            )


def test_a_gguf_file_scores_as_its_folder(tiny: Maker, tiny_gguf: Maker, mirror: Path) -> None:
    folder = evaluate_tasks(str(tiny("llama")), ["arc_easy"], datasets=mirror)
    file = evaluate_tasks(str(tiny_gguf("llama")), ["arc_easy"], datasets=mirror)
    assert file["arc_easy"].metrics == folder["arc_easy"].metrics


def test_tasks_are_measured_in_the_order_asked(tiny: Maker, mirror: Path) -> None:
    found = evaluate_tasks(
        str(tiny("llama")), ["crows_pairs_english_age", "crows_pairs_english"], datasets=mirror
    )
    assert [(score.task, score.items) for score in found.scores] == [
        ("crows_pairs_english_age", 6),
        ("crows_pairs_english", 18),
    ]


class _Counting:
    """A Scorer of five positions, whose every token costs one; it notes what it is asked."""

    context = 5

    def __init__(self) -> None:
        self.rows: list[ScoreRequest] = []

    def score(self, rows: Sequence[ScoreRequest], progress: Progress) -> list[Scored]:
        self.rows += rows
        return [Scored(-float(len(row.tokens)), len(row.tokens) == 1) for row in rows]


class _Letters:
    """A tokenizer of letters that puts a token in front."""

    bos_token_id: int | None = 0
    eos_token_id = 1

    def encode(self, text: str, *, add_special_tokens: bool, verbose: bool) -> list[int]:
        return [0] * add_special_tokens + [ord(letter) for letter in text.removeprefix("^")]

    def decode(self, token: int) -> str:
        return "^"


def _asked() -> tuple[Any, _Counting]:
    from secateur.measure.lm_eval_model import LmEvalModel

    scorer = _Counting()
    return LmEvalModel(scorer, _Letters(), Silent()), scorer


def test_a_text_begins_with_its_token_once() -> None:
    model, _ = _asked()
    assert model.tok_encode("ab") == [0, 97, 98]
    assert model.tok_encode("^ab") == [97, 98], "it is there already"
    assert model.tok_encode("ab", add_special_tokens=False) == [97, 98]
    assert (model.prefix_token_id, model.eot_token_id) == (0, 1)
    model.tokenizer.bos_token_id = None
    assert model.prefix_token_id == 1


def test_a_long_context_is_cut_from_the_left() -> None:
    model, scorer = _asked()
    (answer,) = model._loglikelihood_tokens([(("a", "b"), [1, 2, 3, 4, 5, 6], [7, 8])])
    assert scorer.rows == [ScoreRequest((3, 4, 5, 6), (7, 8))]
    assert answer == (-2.0, False)
    with pytest.raises(UsageError, match="asks for 6 tokens at once, and the model reads 5"):
        model._loglikelihood_tokens([(("a", "b"), [1], [1, 2, 3, 4, 5, 6])])


def test_whole_texts_predict_each_token_once() -> None:
    model, scorer = _asked()
    requests = [SimpleNamespace(args=("abcdefgh",)), SimpleNamespace(args=("ab",))]
    assert model.loglikelihood_rolling(requests) == [-9.0, -3.0], "the first token is predicted too"
    assert [token for row in scorer.rows[:2] for token in row.tokens] == [0, *map(ord, "abcdefgh")]
    assert all(len(row.context) + len(row.tokens) <= 6 for row in scorer.rows)


def test_written_answers_are_refused() -> None:
    with pytest.raises(UsageError, match="need a model that writes"):
        _asked()[0].generate_until([])


def test_the_environment_is_as_it_was_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    import lm_eval.api.task

    from secateur.measure.lm_eval_model import _undisturbed

    monkeypatch.delenv("DISABLE_MULTIPROC", raising=False)
    before = lm_eval.api.task.tqdm
    with _undisturbed():
        assert os.environ["DISABLE_MULTIPROC"] == "1"
        assert lm_eval.api.task.tqdm([1], desc="shown") == [1]
    assert "DISABLE_MULTIPROC" not in os.environ
    assert lm_eval.api.task.tqdm is before
