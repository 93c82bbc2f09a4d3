"""Tasks and bias of rows: figures are those of the verbs, compared with the whole model item by item."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.conftest import Maker
from tests.measure.test_winogender import ROWS
from tests.pipeline.compare.conftest import PROTOCOL

from secateur.core.folder_files import PLAN
from secateur.core.plan import Plan
from secateur.core.progress import Silent
from secateur.measure.task_scores import shift
from secateur.pipeline.compare.compare import compare
from secateur.pipeline.compare.protocol import Protocol
from secateur.pipeline.compare.row import DENSE
from secateur.pipeline.compare.row_tasks import BIAS, TASKS
from secateur.pipeline.compare.row_work import make
from secateur.pipeline.evaluate.bias_audit import audit_bias
from secateur.pipeline.evaluate.tasks import evaluate_tasks
from secateur.pipeline.prune.apply import apply
from secateur.present.comparison_folder import ComparisonRow, cell_folder, read_cell
from secateur_runtime.errors import RecordError, TextError, UsageError

WANDA = ComparisonRow("wanda", "2:4", "unstructured")


@pytest.fixture
def asking(mirror: Path, tmp_path: Path) -> Protocol:
    sentences = tmp_path / "all_sentences.tsv"
    sentences.write_text(ROWS)
    return replace(
        PROTOCOL,
        tasks=("arc_easy", "wikitext"),
        limit=4,
        datasets=str(mirror),
        bias=True,
        winogender=str(sentences),
    )


def test_figures_are_those_of_the_verbs(
    tiny: Maker, tmp_path: Path, here: list[str], asking: Protocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secateur.pipeline.compare.row_tasks.FEWEST", 1)
    model = str(tiny("llama"))
    found = compare(model, tmp_path / "out", methods=["wanda"], targets=["2:4"], protocol=asking)
    assert here[0] == "dense", "the others are compared with what it answers"
    cell = next(cell for cell in found.cells if cell.row == WANDA)
    plan = Plan.from_json((cell_folder(found.folder, WANDA) / PLAN).read_text())
    pruned = str(apply(plan, model, tmp_path / "pruned").out)
    ours, theirs = (
        evaluate_tasks(one, asking.tasks, limit=4, datasets=asking.datasets) for one in (pruned, model)
    )
    record = cell.records["comprehension/arc_easy/acc_norm"]
    expected = shift(ours["arc_easy"]["acc_norm"], theirs["arc_easy"]["acc_norm"])
    assert (record.value, record.standard_error) == (
        ours["arc_easy"]["acc_norm"].value,
        ours["arc_easy"]["acc_norm"].error,
    )
    moved = cell.records["comprehension/arc_easy/acc_norm/shift"]
    assert (moved.value, moved.standard_error) == (expected.value, expected.error)
    assert cell.value("word prediction/wikitext/word_perplexity") == ours["wikitext"]["word_perplexity"].value
    audit = audit_bias(pruned, model, datasets=asking.datasets, winogender=asking.winogender)
    for finding in audit.findings:
        assert cell.value(finding.name) == finding.value.value
        if finding.worse:
            ends = [cell.value(f"{finding.name}/worse{end}") for end in ("", "/low", "/high")]
            assert ends == [finding.worse.value, finding.worse.low, finding.worse.high]
    dense = next(cell for cell in found.cells if cell.row == DENSE)
    assert not [name for name in dense.records if name.endswith(("/shift", "/worse"))]


def test_a_later_run_may_ask_more_and_need_not_repeat_it(
    tiny: Maker, tmp_path: Path, here: list[str], asking: Protocol
) -> None:
    asking = replace(asking, bias_limit=4)
    model, out = str(tiny("llama")), tmp_path / "out"
    compare(model, out, methods=["wanda"], targets=["2:4"], protocol=PROTOCOL)
    quality = (cell_folder(out, WANDA) / "quality.json").read_bytes()
    compare(model, out, methods=["wanda"], targets=["2:4"], protocol=asking)
    assert (cell_folder(out, WANDA) / "quality.json").read_bytes() == quality
    here.clear()
    found = compare(model, out, methods=["random"], targets=["2:4"], protocol=PROTOCOL)
    assert here == ["random at 2:4"]
    assert {"tasks", "bias"} <= next(cell for cell in found.cells if cell.row.method == "random").parts.keys()
    with pytest.raises(UsageError, match="was measured with tasks limit 4, not 3"):
        compare(model, out, methods=["wanda"], targets=["2:4"], protocol=replace(asking, limit=3))


def test_damaged_answers_are_named(tiny: Maker, tmp_path: Path, here: list[str], asking: Protocol) -> None:
    model, out = str(tiny("llama")), tmp_path / "out"
    found = compare(model, out, methods=["wanda"], targets=["2:4"], protocol=replace(asking, bias_limit=4))
    for name, part in ((TASKS, "tasks"), (BIAS, "bias")):
        answers, measured = cell_folder(out, DENSE) / name, cell_folder(out, WANDA) / f"{part}.json"
        whole, record = answers.read_bytes(), measured.read_bytes()
        answers.write_text('{"crows_pairs": {"val')
        measured.unlink()
        with pytest.raises(RecordError, match=rf"{name} is cut short or damaged"):
            make(out, WANDA.name, Silent())
        assert part not in read_cell(out, found.job, WANDA).parts
        answers.write_bytes(whole)
        measured.write_bytes(record)


def test_what_would_stop_every_row_stops_before_the_first(
    tiny: Maker, tmp_path: Path, here: list[str], mirror: Path, asking: Protocol
) -> None:
    bare = tmp_path / "bare" / "allenai" / "ai2_arc"
    bare.mkdir(parents=True)
    (bare / "README.md").write_text(
        (mirror / "allenai" / "ai2_arc" / "README.md").read_text().replace("split: test", "split: tset")
    )
    for split in ("train", "validation", "test"):
        (bare / f"{split}.jsonl").write_bytes(
            (mirror / "allenai" / "ai2_arc" / f"{split}.jsonl").read_bytes()
        )
    cases: list[tuple[Protocol, type[Exception], str]] = [
        (
            replace(asking, tasks=("arc_esy",)),
            UsageError,
            r"unknown task 'arc_esy' \(did you mean arc_easy\?\)",
        ),
        (
            replace(asking, tasks=("arc_easy",), datasets=str(tmp_path / "bare"), bias=False),
            TextError,
            "has no split 'test'",
        ),
        (replace(asking, datasets=str(tmp_path / "none")), TextError, "is no folder"),
        (replace(asking, winogender=str(tmp_path / "none.tsv")), TextError, "none.tsv"),
    ]
    for protocol, error, message in cases:
        with pytest.raises(error, match=message):
            compare(
                str(tiny("llama")), tmp_path / "out", methods=["wanda"], targets=["2:4"], protocol=protocol
            )
    assert here == []
    assert not (tmp_path / "out").exists()
