"""`secateur adapt train` as a user meets it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from tests.cli.command import Secateur


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
