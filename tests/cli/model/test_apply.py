"""`secateur apply` does what a plan says, and refuses a plan that is not for the model."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.command import SMALL, Secateur, json_of
from tests.conftest import Maker

from secateur.model.handle import open_model


def test_plan_then_apply_equals_prune(secateur: Secateur, tiny: Maker, tmp_path: Path) -> None:
    model, options = tiny("llama"), ["--method", "sparsegpt", "--pattern", "2:4", *SMALL]
    json_of(secateur("prune", model, "-o", tmp_path / "a", *options, "--json"))
    json_of(secateur("plan", model, "-o", tmp_path / "plan.json", *options, "--json"))
    json_of(secateur("apply", model, "--plan", tmp_path / "plan.json", "-o", tmp_path / "b", "--json"))
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name


def test_the_type_that_bytes_were_estimated_with_is_the_type_that_is_stored(
    secateur: Secateur, tiny: Maker, tmp_path: Path
) -> None:
    options = ["--method", "width", "--target", "size=240kB", "--dtype", "bfloat16", *SMALL]
    json_of(secateur("plan", tiny("llama"), "-o", tmp_path / "plan.json", *options, "--json"))
    applied = json_of(
        secateur("apply", tiny("llama"), "--plan", tmp_path / "plan.json", "-o", tmp_path / "a", "--json")
    )
    pruned = json_of(secateur("prune", tiny("llama"), "-o", tmp_path / "b", *options, "--json"))
    assert applied["bytes"] == pruned["bytes"]
    assert 2 * applied["parameters"] <= 240_000


def test_a_wrong_plan_is_one_line(secateur: Secateur, tiny: Maker, tmp_path: Path) -> None:
    json_of(
        secateur(
            "plan",
            tiny("qwen2"),
            "-o",
            tmp_path / "plan.json",
            "--method",
            "magnitude",
            "--sparsity",
            "0.5",
            "--json",
        )
    )
    uneven = json.dumps(
        {"version": 1, "model": open_model(str(tiny("llama"))).digest, "keep": {"0.head": [0, 1, 2]}}
    )
    weights = {"model.layers.0.mlp.up_proj.weight": "0.5"}
    unknown = json.dumps(
        {
            "version": 1,
            "model": open_model(str(tiny("llama"))).digest,
            "sparsity": weights,
            "made_by": {"criterion": "gone", "scope": "row"},
        }
    )
    for text, message in (
        (None, "plan was made for"),
        ("{", "not JSON"),
        ('{"version": 1, "model": "", "x": 1}', "unknown key"),
        (uneven, "unevenly"),
        (unknown, "unknown criterion 'gone'; known: magnitude,"),
        (unknown.replace("gone", "wanda").replace("scope", "scoop"), "did you mean scope"),
    ):
        if text is not None:
            (tmp_path / "plan.json").write_text(text)
        code, _, err = secateur(
            "apply", tiny("llama"), "--plan", tmp_path / "plan.json", "-o", tmp_path / "out"
        )
        assert (code, len(err.splitlines())) == (2, 1)
        assert message in err
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]
