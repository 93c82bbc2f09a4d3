"""`secateur run`: a recipe is estimated, run, resumed, and refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.command import Secateur, json_of
from tests.conftest import Maker

RECIPE = """\
model: {model}
stages:
  - prune: {{method: magnitude, sparsity: 0.5}}
  - eval: {{window: 64, count: 1}}
"""


@pytest.fixture
def recipe(tiny: Maker, tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.format(model=tiny("llama")))
    return path


def test_a_dry_run_estimates_and_writes_nothing(secateur: Secateur, recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, printed, _ = secateur("run", recipe, "-o", out, "--dry-run")
    assert code == 0
    assert "estimated, not measured" in printed
    code, printed, _ = secateur("run", recipe, "-o", out, "--dry-run", "--json")
    assert code == 0
    assert '"stage": "prune"' in printed
    assert not out.exists()


def test_stages_are_run_once(secateur: Secateur, recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, printed, _ = secateur("run", recipe, "-o", out)
    assert code == 0
    assert all(word in printed for word in ("prune", "eval", "perplexity", "model: "))
    body = json_of(secateur("run", recipe, "-o", out, "--resume", "--json"))
    assert [stage["cached"] for stage in body["stages"]] == [True, True]
    assert Path(body["model"]).is_dir()
    assert body["output"] == str(out)


def test_another_model_and_other_values(
    secateur: Secateur, recipe: Path, tiny: Maker, tmp_path: Path
) -> None:
    changes = ["--model", tiny("qwen2"), "--set", "prune.sparsity=0.25", "--set", "eval.window=32"]
    body = json_of(secateur("run", recipe, "-o", tmp_path / "out", *changes, "--json"))
    inspected = json_of(secateur("inspect", body["model"], "--json"))
    assert (inspected["family"], inspected["sparsity_of_prunable"]) == ("qwen2", 0.25)


@pytest.mark.parametrize(
    ("change", "message"), [("prune.sparsty=0.4", "did you mean sparsity?"), ("seed", "seed")]
)
def test_a_mistake_is_one_line(
    secateur: Secateur, recipe: Path, tmp_path: Path, change: str, message: str
) -> None:
    code, out, error = secateur("run", recipe, "-o", tmp_path / "out", "--set", change)
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert message in error
    assert not (tmp_path / "out").exists()
