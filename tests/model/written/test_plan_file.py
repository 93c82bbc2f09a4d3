"""The plan next to a model's weights is found however the model was named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.conftest import Maker

from secateur.core.plan import Plan
from secateur.model.handle import open_model
from secateur.model.written.plan_file import plan_beside, plan_digest
from secateur_runtime.errors import PlanError


@pytest.fixture
def home(tiny: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory that holds the folder `model`."""
    shutil.copytree(tiny("llama"), tmp_path / "model")
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_no_plan_is_none_and_an_empty_digest(home: Path) -> None:
    assert plan_beside(str(home / "model")) is None
    assert plan_digest(open_model(str(home / "model"))) == ""


def test_a_path_from_the_home_directory_is_the_same_folder(home: Path) -> None:
    plan = Plan(model="sha256:0", sparsity={"a": "0.50"})
    (home / "model" / "plan.json").write_text(plan.to_json())
    for ref in (str(home / "model"), "~/model"):
        assert plan_beside(ref) == plan
        assert plan_digest(open_model(ref)) == plan.digest()


@pytest.mark.parametrize("body", [b"{", b"\xff\xfe"])
def test_a_damaged_plan_is_an_error(home: Path, body: bytes) -> None:
    (home / "model" / "plan.json").write_bytes(body)
    with pytest.raises(PlanError):
        plan_beside(str(home / "model"))
    with pytest.raises(PlanError):
        plan_digest(open_model(str(home / "model")))
