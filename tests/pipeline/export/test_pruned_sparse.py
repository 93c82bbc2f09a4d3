"""Prune and pack in one call: a killed run continues in the stage where it stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Maker

import secateur
from secateur.core.context import RunContext
from secateur.model.handle import open_model
from secateur.pipeline.export.pruned_sparse import execute_sparse
from secateur.pipeline.export.sparse_folder import SparseExport
from secateur.pipeline.prune.weights.decide import Sparsity


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_killed_prune_with_export_does_not_prune_again(
    tiny: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = open_model(str(tiny("llama")))
    plan = secateur.plan(model.source.ref, Sparsity(sparsity="0.5", method="magnitude"))
    execute_sparse(model, plan, tmp_path / "whole", RunContext(), kind="sparse-int8")

    def dies(*_: Any, **__: Any) -> SparseExport:
        raise KeyboardInterrupt

    monkeypatch.setattr("secateur.pipeline.export.pruned_sparse.export_sparse", dies)
    with pytest.raises(KeyboardInterrupt):
        execute_sparse(model, plan, tmp_path / "out", RunContext(), kind="sparse-int8")
    assert not (tmp_path / "out").exists()
    monkeypatch.undo()
    monkeypatch.setattr("secateur.pipeline.export.pruned_sparse.execute", dies)
    other = secateur.plan(model.source.ref, Sparsity(sparsity="0.6", method="magnitude"))
    with pytest.raises(KeyboardInterrupt):
        execute_sparse(model, other, tmp_path / "out", RunContext(), kind="sparse-int8")
    execute_sparse(model, plan, tmp_path / "out", RunContext(), kind="sparse-int8")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert not (tmp_path / "out.unpacked").exists()
