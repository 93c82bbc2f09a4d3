"""A row at work: its model, its file and its plan are made when they are missing, and once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.conftest import Maker
from tests.pipeline.compare.conftest import PROTOCOL

from secateur.core.folder_files import PLAN
from secateur.core.plan import Plan
from secateur.core.progress import Silent
from secateur.model.handle import open_model
from secateur.pipeline.compare.row import DENSE, FILE, MODEL, RowSpec
from secateur.present.comparison_folder import ComparisonJob, ComparisonRow, read_cell
from secateur_runtime.errors import PlanError

WIDTH = ComparisonRow("width", "ratio=0.3", "structured")
FEW = ComparisonRow("q4_0", "", "quantized")
NATIVE = ComparisonRow("native int8", "", "quantized")


@pytest.fixture
def job(tiny: Maker) -> ComparisonJob:
    model = open_model(str(tiny("llama")))
    return ComparisonJob(
        ref=str(tiny("llama")),
        name="tiny",
        digest=model.digest,
        parameters=model.graph.parameters,
        protocols=PROTOCOL.sections(),
        rows=(DENSE, FEW, WIDTH),
    )


def _spec(job: ComparisonJob, folder: Path, row: ComparisonRow) -> RowSpec:
    return RowSpec(folder, job, row, Silent())


def _planned(spec: RowSpec) -> Plan:
    """Write a plan that keeps 64 neurons of every FFN."""
    plan = Plan(
        model=spec.job.digest,
        keep={f"{index}.ffn": tuple(range(64)) for index in range(3)},
        made_by={"repair": "none"},
    )
    spec.place.mkdir(parents=True)
    (spec.place / PLAN).write_text(plan.to_json(), encoding="utf-8")
    return plan


def test_the_pruned_model_is_made_once_and_again_if_it_is_gone(job: ComparisonJob, tmp_path: Path) -> None:
    spec = _spec(job, tmp_path, WIDTH)
    plan = _planned(spec)
    assert spec.model == str(spec.place / MODEL)
    config = spec.place / MODEL / "config.json"
    made = config.stat().st_mtime_ns
    assert open_model(spec.model).graph.blocks[0].shape.intermediate_size == 64
    assert spec.model
    assert config.stat().st_mtime_ns == made
    digest = open_model(spec.model).digest
    shutil.rmtree(spec.place / MODEL)
    assert open_model(spec.model).digest == digest
    assert spec.plan() == plan
    assert spec.plan_digest == plan.digest()


def test_files_are_of_the_type_of_the_row(job: ComparisonJob, tmp_path: Path) -> None:
    few = _spec(job, tmp_path, FEW)
    assert few.model == str(few.place / FILE)
    whole = few.whole.file()
    assert few.whole.row == DENSE
    assert few.file().stat().st_size < whole.stat().st_size
    before = whole.stat().st_mtime_ns
    assert few.whole.file().stat().st_mtime_ns == before, "written once"


def test_rows_of_the_whole_model_are_the_whole_model(job: ComparisonJob, tmp_path: Path) -> None:
    for row in (DENSE, NATIVE):
        spec = _spec(job, tmp_path, row)
        assert spec.model == job.ref
        assert spec.plan_digest == ""
    assert list(tmp_path.iterdir()) == []


def test_a_part_is_written_with_its_records(job: ComparisonJob, tmp_path: Path) -> None:
    spec = _spec(job, tmp_path, WIDTH)
    plan = _planned(spec)
    spec.write("quality", spec.record("perplexity", 20.0, "perplexity", "by hand", 0.5), notes=("a note",))
    cell = read_cell(tmp_path, job, WIDTH)
    record = cell.records["perplexity"]
    assert (record.value, record.standard_error, record.seed) == (20.0, 0.5, PROTOCOL.seed)
    assert (record.model, record.plan) == (job.digest, plan.digest())
    assert cell.notes == ("a note",)


def test_a_plan_that_is_not_there(job: ComparisonJob, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"^cannot read plan .*plan\.json: No such file"):
        _spec(job, tmp_path, WIDTH).plan()
