"""Prune and pack in one call: a killed run continues in the stage where it stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Maker

import secateur
from secateur.core.context import RunContext
from secateur.core.plan import Plan
from secateur.model.handle import ModelHandle, open_model
from secateur.pipeline.export.formats import ExportResult, exporter_named
from secateur.pipeline.export.pruned_export import execute_exported
from secateur.pipeline.prune.weights.decide import Sparsity


def _packed(model: ModelHandle, plan: Plan, out: Path) -> ExportResult:
    exporter, kind = exporter_named("sparse-int8")
    return execute_exported(model, plan, out, RunContext(), exporter=exporter, kind=kind)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_killed_prune_with_export_does_not_prune_again(
    tiny: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = open_model(str(tiny("llama")))
    plan = secateur.plan(model.source.ref, Sparsity(sparsity="0.5", method="magnitude"))
    _packed(model, plan, tmp_path / "whole")

    def dies(*_: Any, **__: Any) -> ExportResult:
        raise KeyboardInterrupt

    monkeypatch.setattr("secateur.pipeline.export.sparse_folder.export_sparse", dies)
    with pytest.raises(KeyboardInterrupt):
        _packed(model, plan, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    monkeypatch.undo()
    monkeypatch.setattr("secateur.pipeline.export.pruned_export.execute", dies)
    other = secateur.plan(model.source.ref, Sparsity(sparsity="0.6", method="magnitude"))
    with pytest.raises(KeyboardInterrupt):
        _packed(model, other, tmp_path / "out")
    _packed(model, plan, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert not (tmp_path / "out.unpacked").exists()
