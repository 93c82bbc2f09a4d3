"""Comparisons as a whole: what is asked is checked first, done once, and kept if wanted."""

from __future__ import annotations

import fcntl
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Maker
from tests.pipeline.compare.conftest import PROTOCOL

from secateur.pipeline.compare.compare import Running, compare
from secateur.pipeline.compare.protocol import Protocol
from secateur.pipeline.compare.row import MODEL
from secateur.pipeline.evaluate.evaluate import evaluate
from secateur.present.comparison_folder import cell_folder, read_cells
from secateur_runtime.errors import OutputError, RecordError, SecateurError, UnsupportedModelError, UsageError


def test_a_family_that_the_kernels_do_not_have(tiny: Maker, tmp_path: Path, here: list[str]) -> None:
    protocol = replace(PROTOCOL, backends=("torch", "native"))
    with pytest.raises(UnsupportedModelError, match="the native backend runs llama"):
        compare(
            str(tiny("gemma2")), tmp_path / "out", methods=["magnitude"], targets=["2:4"], protocol=protocol
        )
    assert not (tmp_path / "out").exists()


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


def test_another_protocol_or_model_is_refused(tiny: Maker, tmp_path: Path, here: list[str]) -> None:
    model, out = str(tiny("llama")), tmp_path / "out"
    compare(model, out, methods=["magnitude"], targets=["2:4"], protocol=PROTOCOL)
    with pytest.raises(UsageError, match="was measured with quality window 64, not 32"):
        compare(
            model, out, protocol=Protocol(calibration=PROTOCOL.calibration, window=32, count=2, backends=())
        )
    with pytest.raises(UsageError, match=r"compares .*, another model"):
        compare(str(tiny("qwen2")), out, protocol=PROTOCOL)
    (out / "cells" / "more").mkdir()
    with pytest.raises(RecordError, match="more belongs to no row"):
        compare(model, out, methods=["magnitude"], targets=["2:4"], protocol=PROTOCOL)


def test_kept_models_are_those_measured(tiny: Maker, tmp_path: Path, here: list[str]) -> None:
    found = compare(
        str(tiny("llama")),
        tmp_path / "out",
        methods=["magnitude"],
        targets=["2:4"],
        protocol=PROTOCOL,
        running=Running(keep=True),
    )
    (cell,) = [cell for cell in read_cells(found.folder, found.job) if cell.row.target]
    folder = cell_folder(found.folder, cell.row) / MODEL
    assert evaluate(str(folder), window=64, count=2).perplexity == cell.value("perplexity")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"running": Running(engine="rai")}, UsageError, r"unknown --engine 'rai' \(did you mean ray\?\)"),
        ({"protocol": replace(PROTOCOL, backends=("lamacpp",))}, UsageError, "did you mean llamacpp"),
        ({"protocol": replace(PROTOCOL, threads=9999)}, UsageError, "--threads 9999: this machine lets us"),
        ({"methods": ["wnda"]}, UsageError, "did you mean wanda"),
        ({"targets": ["0:4"]}, SecateurError, "0:4"),
        ({"methods": ["wanda"], "targets": ["size=1MB"]}, SecateurError, "counts bytes"),
    ],
)
def test_mistakes_are_found_before_a_folder_is_made(
    tiny: Maker,
    tmp_path: Path,
    here: list[str],
    options: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    asked: dict[str, Any] = {"methods": ["magnitude"], "targets": ["2:4"], "protocol": PROTOCOL} | options
    with pytest.raises(error, match=message) as raised:
        compare(str(tiny("llama")), tmp_path / "out", **asked)
    assert "\n" not in str(raised.value)
    assert here == []
    assert not (tmp_path / "out").exists()


def test_folders_that_are_not_free(tiny: Maker, tmp_path: Path, here: list[str]) -> None:
    model = str(tiny("llama"))
    options: dict[str, Any] = {"methods": ["magnitude"], "targets": ["2:4"], "protocol": PROTOCOL}
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="is a file: give the name of a folder"):
        compare(model, tmp_path / "file", **options)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine").write_text("mine")
    with pytest.raises(OutputError, match="holds something else than a comparison"):
        compare(model, tmp_path / "other", **options)
    (tmp_path / "busy").mkdir()
    with (tmp_path / "busy" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(OutputError, match="another run is writing"):
            compare(model, tmp_path / "busy", **options)
    assert here == []
