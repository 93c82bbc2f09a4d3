"""Cards from measured numbers: those of the very weights, those before pruning, and none of another model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tests.conftest import Maker

from secateur.core.folder_files import CARD
from secateur.core.plan import Plan
from secateur.model.handle import open_model
from secateur.pipeline.compare.model_card import card
from secateur.pipeline.prune.apply import apply
from secateur.present.comparison_folder import ComparisonJob, ComparisonRow, RowPart, write_part
from secateur_runtime.errors import OutputError, RecordError, UsageError
from secateur_runtime.record import Record

DENSE = ComparisonRow("dense", "", "dense")
WIDTH = ComparisonRow("width", "ratio=0.2", "structured")


@pytest.fixture
def pruned(tiny: Maker, tmp_path: Path) -> Path:
    digest = open_model(str(tiny("llama"))).digest
    plan = Plan(model=digest, keep={"1.ffn": tuple(range(64))}, made_by={"repair": "none"})
    return apply(plan, str(tiny("llama")), tmp_path / "pruned").out


def _record(model: str, value: float) -> Record:
    return Record(
        name="perplexity",
        value=value,
        unit="perplexity",
        protocol="wiki.raw (sha256:0), by hand",
        model=model,
    )


def _file(path: Path, *records: Record) -> Path:
    path.write_text(json.dumps({"records": [record.as_dict() for record in records]}))
    return path


def test_figures_of_the_folder_and_of_its_parent(tiny: Maker, tmp_path: Path, pruned: Path) -> None:
    source, own = (open_model(str(folder)).digest for folder in (tiny("llama"), pruned))
    file = _file(tmp_path / "a.json", _record(own, 25.0), _record(source, 20.0))
    words = (pruned / CARD).read_text().partition("# ")[2]
    made = card(str(pruned), files=[file])
    text = (pruned / CARD).read_text()
    assert made.path == pruned / CARD
    assert ([record.value for record in made.records], made.indexed) == ([25.0], 1)
    assert "| perplexity | 25 | 20 |" in text
    assert words.strip() in text


def test_the_row_of_a_comparison_with_these_weights(tiny: Maker, tmp_path: Path, pruned: Path) -> None:
    source, own = (open_model(str(folder)).digest for folder in (tiny("llama"), pruned))
    folder = tmp_path / "compared"
    rows = (DENSE, WIDTH)
    ComparisonJob(ref="x", name="x", digest=source, parameters=1, protocols={}, rows=rows).write(folder)
    for row, weights, value in ((DENSE, "", 20.0), (WIDTH, own, 25.0)):
        write_part(folder, row, "pruned", RowPart(source=source, weights=weights))
        write_part(folder, row, "quality", RowPart(source=source, records=(_record(source, value),)))
    made = card(str(pruned), compared=folder, out=tmp_path / "card.md")
    assert "| perplexity | 25 | 20 |" in made.path.read_text()
    with pytest.raises(OutputError, match=r"card\.md exists: add --overwrite to replace it$"):
        card(str(pruned), compared=folder, out=tmp_path / "card.md")
    assert card(str(pruned), compared=folder, out=tmp_path / "card.md", overwrite=True).indexed == 1
    with pytest.raises(RecordError, match="has no row with these weights"):
        card(str(tiny("qwen2")), compared=folder, out=tmp_path / "other.md")


def test_mistakes_leave_the_card_as_it_is(tiny: Maker, tmp_path: Path, pruned: Path) -> None:
    source = open_model(str(tiny("llama"))).digest
    before = (pruned / CARD).read_bytes()
    (tmp_path / "cut.json").write_text('{"records": [{"na')
    cases = {
        "no number of": _file(tmp_path / "dense.json", _record(source, 20.0)),
        "perplexity of another model": _file(tmp_path / "other.json", _record("sha256:" + "9" * 64, 1.0)),
        "is not what `secateur eval --json` or `bench --json` print": tmp_path / "cut.json",
        "cannot read .*none.json": tmp_path / "none.json",
    }
    for message, file in cases.items():
        with pytest.raises((RecordError, UsageError), match=message) as raised:
            card(str(pruned), files=[file])
        assert "\n" not in str(raised.value)
    with pytest.raises(UsageError, match="nothing was measured: give --compare DIR, or --records"):
        card(str(pruned))
    with pytest.raises(UsageError, match="is no folder"):
        card(str(tmp_path / "none"), files=[tmp_path / "cut.json"])
    assert (pruned / CARD).read_bytes() == before


def test_a_folder_without_a_plan_or_a_card(tiny: Maker, tmp_path: Path) -> None:
    shutil.copytree(tiny("qwen2"), tmp_path / "model")
    own = open_model(str(tmp_path / "model")).digest
    made = card(str(tmp_path / "model"), files=[_file(tmp_path / "a.json", _record(own, 30.0))])
    text = made.path.read_text()
    assert "library_name: transformers" in text
    assert "# model" in text
    assert "| perplexity | 30 | perplexity |" in text
