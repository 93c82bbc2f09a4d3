"""A comparison on disk: what is written is read, and what is not a comparison is refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.present.comparisons import DENSE, DIGEST, ROWS, WANDA, job, record, write

from secateur.present.comparison_folder import (
    CELLS,
    RowPart,
    cell_folder,
    read_cells,
    read_job,
    write_json,
    write_part,
)
from secateur_runtime.errors import RecordError
from secateur_runtime.record import Record


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write(tmp_path)
    assert read_job(tmp_path) == job()
    cells = read_cells(tmp_path, job())
    assert [cell.row for cell in cells] == list(ROWS)
    assert cells[0].value("perplexity") == 20.0
    assert cells[0].value("decode") is None
    assert cells[-1].notes == ("not in llama.cpp: <b>no</b> room",)
    assert cells[-1].removed == ((0.0, 0.5), (1.0, 0.25))
    assert not list(tmp_path.rglob("*.tmp"))


def test_rows_have_folders_of_their_own() -> None:
    assert len({row.id for row in ROWS}) == len(ROWS)
    assert all("/" not in row.id and ":" not in row.id for row in ROWS)


def test_a_failure_is_forgotten_once_something_is_finished(tmp_path: Path) -> None:
    write(tmp_path)
    write_json(cell_folder(tmp_path, WANDA) / "failed.json", {"failed": "no memory"})
    assert next(cell for cell in read_cells(tmp_path, job()) if cell.row == WANDA).failed == "no memory"
    write_part(tmp_path, WANDA, "quality", RowPart(source=DIGEST))
    assert next(cell for cell in read_cells(tmp_path, job()) if cell.row == WANDA).failed == ""


def _cut(folder: Path) -> None:
    path = cell_folder(folder, WANDA) / "quality.json"
    path.write_text(path.read_text()[:50])


def _another_model(folder: Path) -> None:
    write_part(folder, WANDA, "quality", RowPart(source="sha256:f00", records=(record("perplexity", 1.0),)))


def _no_records(folder: Path) -> None:
    (cell_folder(folder, DENSE) / "speed.json").write_text(
        '{"source": "x", "records": [{"name": "speed"}], "removed": [], "notes": []}'
    )


def _text_for_a_number(folder: Path) -> None:
    path = cell_folder(folder, DENSE) / "quality.json"
    path.write_text(path.read_text().replace("20.0", '"low"'))


def _stranger(folder: Path) -> None:
    (folder / CELLS / "holiday").mkdir()


def _other_job(folder: Path) -> None:
    (folder / "compare.json").write_text('{"version": 1, "jobs": []}')


def _other_version(folder: Path) -> None:
    body = json.loads((folder / "compare.json").read_text())
    (folder / "compare.json").write_text(json.dumps(body | {"version": 2}))


def _no_job(folder: Path) -> None:
    (folder / "compare.json").unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_cut, r"quality\.json is cut short or damaged .* delete it"),
        (_another_model, r"is about another model \(sha256:f00"),
        (_no_records, r"speed\.json is damaged \(no record: machine, model"),
        (_text_for_a_number, "holds no number"),
        (_stranger, "holiday belongs to no row"),
        (_other_job, "is not what this secateur writes"),
        (_other_version, "is not what this secateur writes"),
        (_no_job, "holds no compare.json"),
    ],
)
def test_what_is_no_comparison_is_refused(
    tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(write(tmp_path))
    with pytest.raises(RecordError, match=message) as raised:
        read_cells(tmp_path, read_job(tmp_path))
    assert "\n" not in str(raised.value)


def test_a_record_is_what_it_says() -> None:
    assert Record.from_dict(json.loads(json.dumps(record("a", 2).as_dict()))) == record("a", 2)
    bodies: list[object] = [
        None,
        [],
        {"name": "a"},
        record("a", 2).as_dict() | {"value": True},
        record("a", 2).as_dict() | {"unit": 3},
    ]
    for body in bodies:
        with pytest.raises(RecordError):
            Record.from_dict(body)
