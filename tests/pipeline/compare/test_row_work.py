"""One row, part by part: its figures are those of `evaluate`, and finished parts stay."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Maker
from tests.pipeline.compare.conftest import PROTOCOL

from secateur.core.folder_files import PLAN
from secateur.core.plan import Plan
from secateur.core.progress import Silent
from secateur.pipeline.compare.compare import compare
from secateur.pipeline.compare.row import MODEL
from secateur.pipeline.compare.row_work import make, tidy
from secateur.pipeline.evaluate.evaluate import evaluate
from secateur.pipeline.evaluate.native_model import NativeOptions
from secateur.pipeline.prune.apply import apply
from secateur.present.comparison_folder import cell_folder, read_cell, read_job
from secateur.present.summary_rows import lines_of
from secateur_runtime.kernels.dense_or_sparse import Chooser
from secateur_runtime.kernels.kernel_weight import Weight

METHODS = ("magnitude", "wanda", "width:align=8", "depth")


def test_figures_are_those_of_evaluate(tiny: Maker, tmp_path: Path, here: list[str]) -> None:
    model = str(tiny("llama"))
    found = compare(model, tmp_path / "out", methods=METHODS, targets=["ratio=0.3"], protocol=PROTOCOL)
    assert [cell.row.name for cell in found.cells] == [
        "dense",
        "q8_0",
        "q4_0",
        *(f"{name} at ratio=0.3" for name in METHODS),
    ]
    by_name = {cell.row.name: cell for cell in found.cells}
    assert by_name["dense"].value("perplexity") == evaluate(model, window=64, count=2).perplexity
    for name in ("wanda at ratio=0.3", "width:align=8 at ratio=0.3"):
        cell = by_name[name]
        plan = Plan.from_json((cell_folder(found.folder, cell.row) / PLAN).read_text())
        again = apply(plan, model, tmp_path / name)
        assert evaluate(str(again.out), window=64, count=2).perplexity == cell.value("perplexity")
        assert cell.records["perplexity"].plan == plan.digest()
        assert cell.value("parameters") == again.parameters
    sizes = [cell.value("nonzero_parameters") or 0 for cell in found.cells[3:]]
    assert max(sizes) / min(sizes) < 1.2, "tiny blocks are coarse, yet all are about as small"
    assert by_name["wanda at ratio=0.3"].value("weight_bytes") == by_name["dense"].value("weight_bytes")
    assert {
        path.name for path in (tmp_path / "out").rglob("*") if path.suffix in (".safetensors", ".gguf")
    } == set()


class _Inside:
    """Stands where a backend in a process of its own is, and is in this one."""

    def __init__(self, name: str, factory: str, options: dict[str, Any]) -> None:
        module, _, function = factory.partition(":")
        self.name, self._backend = name, getattr(importlib.import_module(module), function)(**options)

    def __enter__(self) -> _Inside:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)


def test_rows_in_the_native_backend(
    tiny: Maker, tmp_path: Path, here: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is compared with the whole model there, which also runs in fewer bits."""
    monkeypatch.setattr("secateur.pipeline.bench.bench.Isolated", _Inside)
    # Which form is faster is another question than what is told of it.
    monkeypatch.setattr(Chooser, "faster", lambda _, packed, dense: Weight(packed))
    model = str(tiny("llama", hidden_size=128, intermediate_size=256))
    protocol = replace(PROTOCOL, backends=("native",), prompt=8, tokens=4, repeat=1)
    found = compare(
        model, tmp_path / "out", methods=["wanda", "width:align=8"], targets=["ratio=0.5"], protocol=protocol
    )
    assert not found.failures
    cells = {cell.row.name: cell for cell in found.cells}
    assert list(cells) == [
        "dense",
        "q8_0",
        "q4_0",
        "native int8",
        "native int4",
        "wanda at ratio=0.5",
        "width:align=8 at ratio=0.5",
    ]
    held = {name: cell.value("native_bytes") or 0.0 for name, cell in cells.items()}
    whole = held["dense"]
    assert held["q8_0"] == held["q4_0"] == 0, "files of another runtime"
    assert held["native int8"] == pytest.approx(whole * (1 + 2 / 64) / 2)
    assert held["native int4"] < held["native int8"]
    assert held["width:align=8 at ratio=0.5"] < 0.8 * whole
    assert held["wanda at ratio=0.5"] < 0.8 * whole
    assert "21 of 22 without their zeros" in cells["wanda at ratio=0.5"].records["native_bytes"].protocol
    for name, cell in cells.items():
        assert ("native_decode_ratio" in cell.records) == (held[name] > 0 and name != "dense")
        assert ("native_bandwidth" in cell.records) == (held[name] > 0)
    assert "sparse-bf16" in cells["wanda at ratio=0.5"].records["native_decode"].protocol
    assert "native bf16," in cells["width:align=8 at ratio=0.5"].records["native_decode"].protocol
    for kind in ("int8", "int4"):
        again = evaluate(model, window=64, count=2, native=NativeOptions(kind=kind))
        assert (
            cells[f"native {kind}"].value("perplexity")
            == again.perplexity
            != cells["dense"].value("perplexity")
        )
    lines = {line.row.name: line for line in lines_of(found.cells)}
    assert lines["native int8"].size == held["native int8"]
    assert lines["native int8"].runtime == "native"


def test_a_part_that_is_missing_is_measured_on_the_same_weights(
    tiny: Maker, tmp_path: Path, here: list[str]
) -> None:
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
