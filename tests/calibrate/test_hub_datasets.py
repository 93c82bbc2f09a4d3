"""Text from data sets, read from local folders laid out like the hub."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from secateur.calibrate import hub_datasets
from secateur.calibrate.text import read_text
from secateur_runtime.errors import MissingExtraError, TextError, UsageError

CARD = """---
configs:
- config_name: plain
  data_files:
  - split: test
    path: plain/test.jsonl
- config_name: other
  data_files:
  - split: test
    path: other/test.jsonl
---
"""


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that holds the data set `org/set`, as the working directory."""
    pytest.importorskip("datasets", reason="needs the datasets extra")
    folder = tmp_path / "org" / "set"
    sets: dict[str, list[dict[str, object]]] = {
        "plain": [{"text": "one"}, {"text": ""}, {"text": "two"}],
        "other": [{"body": "one", "id": 1}],
    }
    for config, rows in sets.items():
        (folder / config).mkdir(parents=True)
        (folder / config / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "README.md").write_text(CARD)
    monkeypatch.chdir(tmp_path)
    return folder


def fake_datasets(rows: object) -> Any:
    """A stand-in for the package, whose `load_dataset` gives `rows` or raises them."""

    def load_dataset(*args: object, **options: object) -> object:
        if isinstance(rows, Exception):
            raise rows
        return rows

    module = ModuleType("datasets")
    module.__dict__.update(load_dataset=load_dataset, exceptions=SimpleNamespace(DatasetsError=LookupError))
    return module


def test_local_folder_by_id_and_by_path(mirror: Path) -> None:
    assert read_text("hf:org/set:plain:test").text == "one\n\n\n\ntwo"
    assert read_text(f"hf:{mirror}:plain:test").text == "one\n\n\n\ntwo"


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("hf:org/set:other:test", "its columns are body, id"),
        ("hf:org/set:none:test", "none"),
        ("hf:org/set:plain:none", "none"),
        ("hf:./missing::test", "missing"),
    ],
)
def test_what_cannot_be_loaded(mirror: Path, spec: str, reason: str) -> None:
    with pytest.raises(TextError) as caught:
        read_text(spec)
    assert spec in str(caught.value)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spec", ["hf:", "hf:set", "hf:set:test", "hf::config:test", "hf:set:config:"])
def test_malformed_spec(spec: str) -> None:
    with pytest.raises(UsageError, match="DATASET:CONFIG:SPLIT"):
        read_text(spec)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'secateur\[datasets\]'"):
        read_text("hf:org/set:plain:test")


def test_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        sys.modules,
        "datasets",
        fake_datasets(ConnectionError("Couldn't reach 'org/set' on the Hub\nlong story")),
    )
    with pytest.raises(TextError, match=r"^cannot reach the hub for hf:org/set::test: [^\n]*$"):
        read_text("hf:org/set::test")


def test_reading_stops_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = iter([{"text": "abc"}] * 10)
    monkeypatch.setitem(sys.modules, "datasets", fake_datasets(rows))
    monkeypatch.setattr(hub_datasets, "LIMIT", 6)
    assert read_text("hf:org/set::test").text == "abc\n\nabc"
    assert len(list(rows)) == 8
