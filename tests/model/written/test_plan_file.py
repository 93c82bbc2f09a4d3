"""The plan in a model folder: found, missing or damaged."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.conftest import Maker

from secateur.core.folder_files import PLAN as PLAN_FILE
from secateur.core.plan import Plan
from secateur.model.handle import open_model
from secateur.model.written.plan_file import plan_beside, plan_digest
from secateur_runtime.errors import PlanError

PLAN = Plan(model="sha256:0", drop=("1.attn",))


def test_a_plan_is_read_from_its_folder(tmp_path: Path) -> None:
    assert plan_beside(str(tmp_path)) is None
    (tmp_path / PLAN_FILE).write_text(PLAN.to_json())
    assert plan_beside(str(tmp_path)) == PLAN


def test_a_name_that_is_no_folder_has_no_plan() -> None:
    assert plan_beside("smollm2-135m") is None
    assert plan_beside("org/name") is None


def test_the_home_folder_may_be_written_as_a_tilde(
    tiny: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(tiny("llama"), tmp_path / "model")
    (tmp_path / "model" / PLAN_FILE).write_text(PLAN.to_json())
    assert plan_beside("~/model") == PLAN
    assert plan_digest(open_model("~/model")) == PLAN.digest()


def test_the_digest_is_empty_without_a_plan(tiny: Maker) -> None:
    assert plan_digest(open_model(str(tiny("llama")))) == ""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "plan is not JSON"),
        (b"\xff\xfe", "cannot read .*plan.json"),
        (b'{"version": 9}', "version is 9"),
    ],
)
def test_a_damaged_plan_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / PLAN_FILE).write_bytes(content)
    with pytest.raises(PlanError, match=message) as caught:
        plan_beside(str(tmp_path))
    assert "\n" not in str(caught.value)
