"""`secateur adapt simulate` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.command import Secateur


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
    assert list(figures) == ["cost-aware", "greedy", "knapsack", "none", "threshold", "static"]
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
