"""Prune and pack in one call: a killed run continues in the stage where it stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Maker

import secateur
from secateur.core.plan import Plan
from secateur.model.written.write_settings import Settings
from secateur.pipeline.export.formats import ExportResult, exporter_named
from secateur.pipeline.export.pruned_export import apply_exported
from secateur.pipeline.prune.weights.decide import Sparsity


def _packed(plan: Plan, model: str, out: Path) -> ExportResult:
    exporter, kind = exporter_named("sparse-int8")
    return apply_exported(plan, model, out, exporter=exporter, kind=kind, settings=Settings())


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_killed_prune_with_export_does_not_prune_again(
    tiny: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = str(tiny("llama"))
    plan = secateur.plan(model, Sparsity(sparsity="0.5", method="magnitude"))
    _packed(plan, model, tmp_path / "whole")

    def dies(*_: Any, **__: Any) -> ExportResult:
        raise KeyboardInterrupt

    monkeypatch.setattr("secateur.pipeline.export.sparse_folder.export_sparse", dies)
    with pytest.raises(KeyboardInterrupt):
        _packed(plan, model, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    monkeypatch.undo()
    monkeypatch.setattr("secateur.pipeline.export.pruned_export.apply", dies)
    other = secateur.plan(model, Sparsity(sparsity="0.6", method="magnitude"))
    with pytest.raises(KeyboardInterrupt):
        _packed(other, model, tmp_path / "out")
    _packed(plan, model, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert not (tmp_path / "out.unpacked").exists()
