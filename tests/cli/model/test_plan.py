"""`secateur plan` writes a decision, and explains it."""

from __future__ import annotations

from pathlib import Path

from tests.cli.command import SMALL, Secateur, json_of
from tests.conftest import Maker

from secateur.core.plan import Plan


def test_a_plan_is_explained_tensor_by_tensor(secateur: Secateur, tiny: Maker, tmp_path: Path) -> None:
    options = ["-o", tmp_path / "plan.json", "--method", "magnitude", "--pattern", "2:4", "--explain"]
    code, out, _ = secateur("plan", tiny("phi3"), *options)
    assert code == 0
    assert "gate_up_proj" in out
    assert "2:4" in out


def test_the_summary_is_that_of_the_file(secateur: Secateur, tiny: Maker, tmp_path: Path) -> None:
    options = ["--method", "depth", "--drop-layers", "1", *SMALL]
    body = json_of(secateur("plan", tiny("llama"), "-o", tmp_path / "plan.json", *options, "--json"))
    plan = Plan.from_json((tmp_path / "plan.json").read_text())
    assert (body["plan"], body["dropped"].split()) == (plan.digest(), list(plan.drop))
    assert (body["pruned_tensors"], body["narrowed"]) == (0, 0)
    assert body["loads"] == "in stock transformers"


def test_an_existing_plan_is_not_replaced(secateur: Secateur, tiny: Maker, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("mine")
    command = [
        "plan",
        tiny("llama"),
        "-o",
        tmp_path / "plan.json",
        "--method",
        "magnitude",
        "--sparsity",
        "0.5",
    ]
    code, out, error = secateur(*command)
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert "--overwrite" in error
    assert (tmp_path / "plan.json").read_text() == "mine"
    assert secateur(*command, "--overwrite")[0] == 0
    assert (tmp_path / "plan.json").read_text() != "mine"
