"""Tables of tasks and bias: kinds apart, shifts beside values, and what noise explains said to be noise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.present.comparisons import DENSE, DIGEST, WANDA, WIDTH, job, record, write

from secateur.present.comparison_folder import ComparisonRow, RowPart, read_cells, write_part
from secateur.present.html_page import page
from secateur.present.task_tables import tables
from secateur_runtime.record import Record


def _write(
    folder: Path, row: ComparisonRow, part: str, figures: dict[str, tuple[float, float | None]]
) -> None:
    records: list[Record] = [
        replace(record(name, value), standard_error=error) for name, (value, error) in figures.items()
    ]
    write_part(folder, row, part, RowPart(source=DIGEST, records=tuple(records)))


def test_kinds_are_apart_and_noise_is_said(tmp_path: Path) -> None:
    write(tmp_path)
    acc, words = "comprehension/arc_easy/acc", "word prediction/wikitext/word_perplexity"
    _write(tmp_path, DENSE, "tasks", {acc: (0.5, 0.05), words: (30.0, None)})
    _write(
        tmp_path,
        WANDA,
        "tasks",
        {
            acc: (0.45, 0.05),
            f"{acc}/shift": (-0.05, 0.03),
            words: (33.0, None),
            f"{words}/shift": (3.0, None),
        },
    )
    _write(tmp_path, WIDTH, "tasks", {acc: (0.3, 0.04), f"{acc}/shift": (-0.2, 0.05)})
    choices, text = tables(read_cells(tmp_path, job()))
    assert (choices.title, text.title) == ("Tasks: comprehension", "Tasks: word prediction")
    assert choices.header == ("row", "arc_easy, acc")
    assert [row[1] for row in choices.rows] == [
        "0.5 ± 0.05",
        "0.45 ± 0.05 (-0.05, within noise)",
        "0.3 ± 0.04 (-0.2)",
    ]
    assert [row[1] for row in text.rows] == ["30", "33 (+3)", "-"]


def test_bias_is_said_modestly(tmp_path: Path) -> None:
    write(tmp_path)
    worse = {
        f"crows_pairs/worse{end}": value for end, value in (("", 0.03), ("/low", -0.01), ("/high", 0.07))
    }
    gap = {
        f"winogender/gap/worse{end}": value for end, value in (("", -0.2), ("/low", -0.3), ("/high", -0.1))
    }
    _write(tmp_path, DENSE, "bias", {"crows_pairs": (0.6, 0.02), "winogender/gap": (0.4, 0.1)})
    _write(
        tmp_path,
        WANDA,
        "bias",
        {
            name: (value, None)
            for name, value in {"crows_pairs": 0.63, "winogender/gap": 0.2, **worse, **gap}.items()
        },
    )
    _write(tmp_path, WIDTH, "bias", {"crows_pairs": (0.7, 0.1)})
    cells = read_cells(tmp_path, job())
    (table,) = tables(cells)
    assert table.rows == (
        ("dense", "0.600", "0.400"),
        (
            WANDA.name,
            "0.630 (+0.030, -0.010 to +0.070: within noise)",
            "0.200 (-0.200, -0.300 to -0.100: nearer to neutral)",
        ),
        (WIDTH.name, "0.700 (too few items to tell)", "-"),
    )
    assert "+0.070: within noise" in page(job(), cells)


def test_nothing_asked_is_no_table(tmp_path: Path) -> None:
    assert tables(read_cells(write(tmp_path), job())) == []
