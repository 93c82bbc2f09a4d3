"""One row, part by part: what is measured is what `evaluate` measures, and what is finished is not done again."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conftest import Maker

from secateur import pipeline
from secateur.core.errors import RecordError, UsageError
from secateur.core.plan import Plan
from secateur.core.progress import Silent
from secateur.pipeline.calibration import Calibration
from secateur.pipeline.comparing import compare
from secateur.pipeline.comparing.cell import MODEL, make, tidy
from secateur.pipeline.comparing.processes import Failure, Pool, Task
from secateur.pipeline.comparing.protocol import Protocol
from secateur.present.folder import PLAN, cell_folder, read_cell, read_cells, read_job

PROTOCOL = Protocol(calibration=Calibration(samples=2, window=64), window=64, count=2, backends=())
METHODS = ("magnitude", "wanda", "width:align=8", "depth")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Have rows worked on in this process; returns the names of those that were."""
    done: list[str] = []

    def run(pool: Pool, tasks: list[Task]) -> list[Failure]:
        for task in tasks:
            done.extend(task.names)
            for name in task.names:
                make(Path(pool.command(task, 0)[3]), name, Silent())
        return []

    monkeypatch.setattr(Pool, "run", run)
    return done


def test_figures_are_those_of_evaluate(tiny: Maker, tmp_path: Path, here: list[str]) -> None:
    model = str(tiny("llama"))
    found = compare(model, tmp_path / "out", methods=METHODS, targets=["ratio=0.3"], protocol=PROTOCOL)
    assert [cell.row.name for cell in found.cells] == ["dense", "q8_0", "q4_0", *(f"{name} at ratio=0.3" for name in METHODS)]
    by_name = {cell.row.name: cell for cell in found.cells}
    assert by_name["dense"].value("perplexity") == pipeline.evaluate(model, window=64, count=2).perplexity
    for name in ("wanda at ratio=0.3", "width:align=8 at ratio=0.3"):
        cell = by_name[name]
        plan = Plan.from_json((cell_folder(found.folder, cell.row) / PLAN).read_text())
        again = pipeline.apply(plan, model, tmp_path / name)
        assert pipeline.evaluate(str(again.out), window=64, count=2).perplexity == cell.value("perplexity")
        assert cell.records["perplexity"].plan == plan.digest()
        assert cell.value("parameters") == again.parameters
    sizes = [cell.value("nonzero_parameters") or 0 for cell in found.cells[3:]]
    assert max(sizes) / min(sizes) < 1.2, "tiny blocks are coarse, yet all are about as small"
    assert by_name["wanda at ratio=0.3"].value("weight_bytes") == by_name["dense"].value("weight_bytes")
    assert {path.name for path in (tmp_path / "out").rglob("*") if path.suffix in (".safetensors", ".gguf")} == set()


def test_what_is_finished_is_not_done_again(tiny: Maker, tmp_path: Path, here: list[str]) -> None:
    model, out = str(tiny("llama")), tmp_path / "out"
    compare(model, out, methods=["magnitude"], targets=["2:4"], protocol=PROTOCOL)
    before = {path: path.read_bytes() for path in out.rglob("*.json") if path.name != "compare.json"}
    here.clear()
    compare(model, out, methods=["magnitude"], targets=["2:4"], protocol=PROTOCOL)
    assert here == []
    found = compare(model, out, methods=["random"], targets=["2:4"], protocol=PROTOCOL)
    assert here == ["random at 2:4"]
    assert len(found.cells) == 5
    assert all(path.read_bytes() == text for path, text in before.items())


def test_a_part_that_is_missing_is_measured_on_the_same_weights(tiny: Maker, tmp_path: Path, here: list[str]) -> None:
    """A kill after pruning, with the weights gone: the plan makes them again."""
    model, out = str(tiny("llama")), tmp_path / "out"
    found = compare(model, out, methods=["wanda"], targets=["2:4"], protocol=PROTOCOL)
    row, perplexity = found.cells[-1].row, found.cells[-1].value("perplexity")
    pruned = (cell_folder(out, row) / "pruned.json").read_bytes()
    (cell_folder(out, row) / "quality.json").unlink()
    make(out, row.name, Silent())
    again = read_cell(out, read_job(out), row)
    assert again.value("perplexity") == perplexity
    assert (cell_folder(out, row) / "pruned.json").read_bytes() == pruned
    assert (cell_folder(out, row) / MODEL / "config.json").is_file()
    tidy(out, row)
    assert not (cell_folder(out, row) / MODEL).exists()


def test_another_protocol_or_model_is_refused(tiny: Maker, tmp_path: Path, here: list[str]) -> None:
    model, out = str(tiny("llama")), tmp_path / "out"
    compare(model, out, methods=["magnitude"], targets=["2:4"], protocol=PROTOCOL)
    with pytest.raises(UsageError, match="was measured with quality window 64, not 32"):
        compare(model, out, protocol=Protocol(calibration=PROTOCOL.calibration, window=32, count=2, backends=()))
    with pytest.raises(UsageError, match=r"compares .*, another model"):
        compare(str(tiny("qwen2")), out, protocol=PROTOCOL)
    (out / "cells" / "more").mkdir()
    with pytest.raises(RecordError, match="more belongs to no row"):
        compare(model, out, methods=["magnitude"], targets=["2:4"], protocol=PROTOCOL)


def test_kept_models_are_those_measured(tiny: Maker, tmp_path: Path, here: list[str]) -> None:
    from secateur.pipeline.comparing import Running

    found = compare(str(tiny("llama")), tmp_path / "out", methods=["magnitude"], targets=["2:4"], protocol=PROTOCOL, running=Running(keep=True))
    (cell,) = [cell for cell in read_cells(found.folder, found.job) if cell.row.target]
    folder = cell_folder(found.folder, cell.row) / MODEL
    assert pipeline.evaluate(str(folder), window=64, count=2).perplexity == cell.value("perplexity")
