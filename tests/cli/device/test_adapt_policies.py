"""`secateur adapt train` and `simulate` as a user meets them."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.conftest import Maker
from tests.ladders import EXAMPLE, ladder_for

from secateur.model.handle import open_model
from secateur_runtime.ladder import Rung
from secateur_runtime.ladder_file import read_ladder

Secateur = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ladder(tmp_path: Path) -> Path:
    """A ladder whose sizes are such that memory decides."""

    def sized(rung: Rung) -> Rung:
        return replace(rung, weight_bytes=rung.weight_bytes * 10_000)

    replace(EXAMPLE, whole=sized(EXAMPLE.whole), rungs=tuple(map(sized, EXAMPLE.rungs))).save(
        tmp_path / "ladder.json"
    )
    return tmp_path / "ladder.json"


def test_simulate_says_how_every_policy_did_and_draws_it(
    secateur: Secateur, ladder: Path, tmp_path: Path
) -> None:
    pytest.importorskip("vl_convert")
    code, out, err = secateur(
        "adapt",
        "simulate",
        ladder,
        "--requests",
        10,
        "--budget",
        0.9,
        "--trace",
        "drift",
        "-o",
        tmp_path / "out",
        "--json",
    )
    assert (code, err) == (0, "")
    body = json.loads(out)
    figures = body["policies"]
    assert list(figures) == ["none", "threshold", "greedy", "cost-aware", "knapsack", "static"]
    assert figures["none"]["killed"] > 0.5
    for name in ("greedy", "cost-aware", "knapsack", "static"):
        assert figures[name]["decision_p99_us"] > 0
        assert figures[name]["perplexity"] > figures["none"]["perplexity"] or figures["none"]["served"] == 0
    assert figures["knapsack"]["loss"] <= figures["static"]["loss"]
    page = (tmp_path / "out" / "simulate.html").read_text()
    assert "cost-aware" in page
    assert 'src="http' not in page
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "simulate.html",
        "memory.png",
        "quality.png",
        "trace.jsonl",
    }
    # what was made up can be replayed
    replayed = json.loads(
        secateur(
            "adapt",
            "simulate",
            ladder,
            "--trace",
            tmp_path / "out" / "trace.jsonl",
            "--policies",
            "knapsack",
            "--json",
        )[1]
    )
    assert replayed["policies"]["knapsack"]["loss"] == figures["knapsack"]["loss"]
    code, _, err = secateur("adapt", "simulate", ladder, "-o", tmp_path / "out")
    assert (code, err.count("\n"), "exists" in err) == (2, 1, True)


@pytest.mark.skipif(
    importlib.util.find_spec("stable_baselines3") is None, reason="stable-baselines3 is not installed"
)
def test_what_is_trained_can_decide(secateur: Secateur, ladder: Path, tmp_path: Path) -> None:
    code, out, err = secateur(
        "adapt",
        "train",
        ladder,
        "-o",
        tmp_path / "policy.safetensors",
        "--steps",
        400,
        "--formulation",
        "level",
        "--json",
    )
    assert (code, err) == (0, "")
    body = json.loads(out)
    assert body["bytes"] == (tmp_path / "policy.safetensors").stat().st_size < 1_000_000
    assert 0 < body["quality_dqn"] <= body["quality_knapsack"] + 1e-9
    options = [
        "--policies",
        "dqn,greedy",
        "--network",
        tmp_path / "policy.safetensors",
        "--trace",
        "steady",
        "--json",
    ]
    assert json.loads(secateur("adapt", "simulate", ladder, *options)[1])["policies"]["dqn"]["killed"] <= 1
    assert secateur("adapt", "train", ladder, "-o", tmp_path / "policy.safetensors", "--steps", 400)[0] == 2


def test_price_writes_a_ladder_with_prices(secateur: Secateur, tiny: Maker, tmp_path: Path) -> None:
    model = open_model(str(tiny("llama")))
    ladder_for(model.graph, model.digest, ["1.attn", "1.ffn"]).save(tmp_path / "plain.json")
    options = ["-o", tmp_path / "priced.json", "--samples", 2, "--calib-window", 32, "--json"]
    code, out, err = secateur("adapt", "price", model.source.ref, tmp_path / "plain.json", *options)
    assert (code, err) == (0, "")
    assert json.loads(out)["prices"].keys() == {"1.attn", "1.ffn"}
    assert read_ladder(tmp_path / "priced.json").costs[0].keys() == {"1.attn", "1.ffn"}
    assert secateur("adapt", "price", model.source.ref, tmp_path / "plain.json", *options)[0] == 2


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["simulate", "--policies", "gredy"], "did you mean greedy?"),
        (["simulate", "--policies", "dqn"], "needs the file of its network"),
        (["simulate", "--trace", "burst"], "did you mean bursts?"),
        (["simulate", "--trace", "none.jsonl"], "cannot read"),
        (["simulate", "--budget", "0"], "a budget of 0"),
        (["simulate", "--per", "week"], "--per week"),
        (["simulate", "--device", "pi5"], "use --device local"),
        (["train", "--formulation", "both"], "--formulation both"),
    ],
)
def test_every_mistake_is_one_line(
    options: list[str], problem: str, secateur: Secateur, ladder: Path, tmp_path: Path
) -> None:
    output = ["-o", tmp_path / "policy.safetensors"] if options[0] == "train" else []
    code, out, err = secateur("adapt", options[0], ladder, *options[1:], *output)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert problem in err
    assert [path.name for path in tmp_path.iterdir()] == ["ladder.json"]
