"""Task definitions by name, with their data, and every mistake in one line."""

from __future__ import annotations

import os
import shutil
import types
from pathlib import Path
from typing import Any

import datasets
import pytest
from tests.conftest import Maker
from tests.mirror import write_data_set

from secateur.pipeline.evaluate.tasks import evaluate_tasks
from secateur_runtime.errors import SecateurError, TextError, UsageError

pytest.importorskip("lm_eval")


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


def test_a_module_is_as_it_was_afterwards() -> None:
    from secateur.measure.lm_eval_tasks import replaced

    module = types.SimpleNamespace(value=1)
    with replaced(module, "value", 2):
        assert module.value == 2
    assert module.value == 1
    with pytest.raises(KeyError), replaced(module, "value", 3):
        raise KeyError
    assert module.value == 1


def test_loading_leaves_the_library_as_it_was(mirror: Path) -> None:
    from secateur.measure.lm_eval_tasks import load_tasks

    before = datasets.load_dataset
    loaded = load_tasks(["arc_easy"], mirror)
    assert list(loaded["tasks"]) == ["arc_easy"]
    with pytest.raises(TextError):
        load_tasks(["hellaswag"], mirror)
    assert datasets.load_dataset is before
