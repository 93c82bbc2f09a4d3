"""Scores of tasks against lm-eval's own class for transformers, and every mistake in one line."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Maker
from tests.mirror import write_data_set

from secateur.measure.task_scores import CHOICES, WORDS, Metric, chosen, shift
from secateur.pipeline.evaluate.tasks import evaluate_tasks
from secateur_runtime.errors import MissingExtraError, SecateurError, TextError, UsageError

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


def test_kinds_are_told_apart_and_figures_become_records(tiny: Maker, mirror: Path) -> None:
    found = evaluate_tasks(str(tiny("llama")), TASKS, datasets=mirror, limit=3)
    assert [score.kind for score in found.scores] == [CHOICES, CHOICES, WORDS, WORDS]
    records = {record.name: record for record in found.records()}
    assert {"arc_easy/acc", "arc_easy/acc_norm", "wikitext/word_perplexity"} <= set(records)
    assert records["arc_easy/acc"].value == found["arc_easy"]["acc"].value
    assert records["arc_easy/acc"].standard_error == found["arc_easy"]["acc"].error
    assert "the first 3 of 6 items" in records["arc_easy/acc"].protocol
    assert records["arc_easy/acc"].model.startswith("sha256:")
    assert len(found["arc_easy"]["acc"].items) == 3
    assert (found["wikitext"]["word_perplexity"].items, found["wikitext"]["word_perplexity"].error) == (
        (),
        None,
    )


def test_a_gguf_file_scores_as_its_folder(tiny: Maker, tiny_gguf: Maker, mirror: Path) -> None:
    folder = evaluate_tasks(str(tiny("llama")), ["arc_easy"], datasets=mirror)
    file = evaluate_tasks(str(tiny_gguf("llama")), ["arc_easy"], datasets=mirror)
    assert file["arc_easy"].metrics == folder["arc_easy"].metrics


def test_relative_paths_stay_relative_to_here(
    tiny: Maker, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny("llama").parent)
    found = evaluate_tasks(tiny("llama").name, ["arc_easy"], datasets=os.path.relpath(mirror), limit=1)
    assert found["arc_easy"].items == 1


def test_a_definition_of_ones_own(tiny: Maker, mirror: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "task: mine\ndataset_path: allenai/ai2_arc\ndataset_name: ARC-Easy\ntest_split: test\noutput_type:"
        " multiple_choice\ndoc_to_text: '{{question}}'\ndoc_to_target: 0\ndoc_to_choice:"
        " '{{choices.text}}'\nmetric_list:\n  - metric: acc\n"
    )
    assert (
        evaluate_tasks(str(tiny("llama")), [str(tmp_path / "mine.yaml")], datasets=mirror)["mine"].items == 6
    )


def _refused(kind: type[SecateurError], message: str, folder: Path, tasks: list[str], **options: Any) -> None:
    with pytest.raises(kind) as caught:
        evaluate_tasks(str(folder), tasks, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_mistakes_are_one_line(tiny: Maker, mirror: Path, tmp_path: Path) -> None:
    model = tiny("llama")
    _refused(UsageError, "no task is named", model, [], datasets=mirror)
    _refused(
        TextError,
        "is no folder: --datasets takes one laid out like the hub",
        model,
        ["arc_easy"],
        datasets=tmp_path / "no",
    )
    _refused(TextError, "has no data set Rowan/hellaswag: add it", model, ["hellaswag"], datasets=mirror)
    _refused(UsageError, "task gsm8k judges written answers", model, ["gsm8k"], datasets=_gsm8k(tmp_path))
    _refused(
        UsageError,
        "task arc_easy has 6 solved examples, too few for --few-shot 9",
        model,
        ["arc_easy"],
        datasets=mirror,
        shots=9,
    )
    _refused(TextError, "--datasets a folder that holds it", model, ["hellaswag"])


@pytest.mark.slow
def test_every_name_of_lm_eval_is_known() -> None:
    """Names found in the text of definitions against those that lm-eval finds by parsing them all."""
    from lm_eval.tasks import TaskManager

    from secateur.measure.lm_eval_tasks import _known

    assert set(TaskManager().all_tasks) <= set(_known())


def test_tasks_are_measured_in_the_order_asked(tiny: Maker, mirror: Path) -> None:
    found = evaluate_tasks(
        str(tiny("llama")), ["crows_pairs_english_age", "crows_pairs_english"], datasets=mirror
    )
    assert [(score.task, score.items) for score in found.scores] == [
        ("crows_pairs_english_age", 6),
        ("crows_pairs_english", 18),
    ]


def _gsm8k(folder: Path) -> Path:
    rows = [{"question": "1 + 1?", "answer": "It is 2. #### 2"}]
    write_data_set(folder / "openai" / "gsm8k", "main", {"train": rows, "test": rows})
    return folder


def test_a_mirror_without_the_split(tiny: Maker, mirror: Path, tmp_path: Path) -> None:
    shutil.copytree(mirror / "allenai", tmp_path / "allenai")
    card = tmp_path / "allenai" / "ai2_arc" / "README.md"
    card.write_text("\n".join(line for line in card.read_text().splitlines() if "test" not in line))
    _refused(
        TextError,
        "allenai/ai2_arc has no split 'test', which task arc_easy reads; it has train, validation",
        tiny("llama"),
        ["arc_easy"],
        datasets=tmp_path,
    )
    (tmp_path / "allenai" / "openbookqa" / "test.jsonl").unlink()
    _refused(
        TextError,
        "task openbookqa: cannot read allenai/openbookqa",
        tiny("llama"),
        ["openbookqa"],
        datasets=tmp_path,
    )


def test_an_unknown_task_has_a_nearest_name(tiny: Maker, mirror: Path) -> None:
    _refused(
        UsageError,
        "unknown task 'arc_esy' (did you mean arc_easy?)",
        tiny("llama"),
        ["arc_esy"],
        datasets=mirror,
    )


def test_a_missing_extra_says_what_to_install(tiny: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    _refused(
        MissingExtraError, "--tasks needs lm-eval: pip install 'secateur[eval]'", tiny("llama"), ["arc_easy"]
    )


def test_an_unknown_metric_has_a_nearest_name(tiny: Maker, mirror: Path) -> None:
    scores = evaluate_tasks(str(tiny("llama")), ["arc_easy", "openbookqa"], datasets=mirror, limit=2).scores
    assert {task: [metric.name for metric in found] for task, found in chosen(scores, ["acc"]).items()} == {
        "arc_easy": ["acc"],
        "openbookqa": ["acc"],
    }
    with pytest.raises(UsageError, match=r"unknown metric 'acc_nrm' \(did you mean acc_norm\?\)"):
        chosen(scores, ["acc_nrm"])
    with pytest.raises(UsageError, match=r"arc_easy has no metric 'ac'"):
        scores[0]["ac"]


def test_a_shift_is_paired() -> None:
    """Differences 1, 0, 0, -1: the deviation of the pairs, not of the two means apart."""
    ours, theirs = (
        Metric("acc", sum(items) / 4, 0.25, True, items)
        for items in ((1.0, 1.0, 0.0, 0.0), (0.0, 1.0, 0.0, 1.0))
    )
    found = shift(ours, theirs)
    assert found.value == 0
    assert found.error == pytest.approx((2 / 3) ** 0.5 / 2)
    assert found.within_noise
    assert shift(ours, Metric("acc", 0.5, 0.25, True)).within_noise is None
