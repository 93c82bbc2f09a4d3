"""Traces and policies by name, and the runs of several policies."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.adapt.ladders import choices_of

from secateur.adapt.replay.replay import policies_of, replay, trace_of
from secateur.adapt.replay.simulate import simulate
from secateur.adapt.replay.speed_model import Roofline
from secateur.adapt.replay.traces import synthetic, write_trace
from secateur.core.progress import Silent
from secateur_runtime.errors import UsageError
from secateur_runtime.policies import make_policy

CHOICES = choices_of(["1.ffn", "2.attn"], [(4_000, 0), (1_000, 400)], [0.1, 0.5], [2.0, 2.1, 2.6])
MOMENTS = synthetic("drift", CHOICES.whole, budget=0.8, requests=3, seed=0)
SPEED = Roofline(1_000.0, 1e12, "test")


def test_a_trace_is_a_kind_or_a_file(tmp_path: Path) -> None:
    assert trace_of("drift", CHOICES, budget=0.8, requests=3, seed=0, per="request") == MOMENTS
    write_trace(tmp_path / "a.jsonl", MOMENTS, about="test")
    path = str(tmp_path / "a.jsonl")
    assert trace_of(path, CHOICES, budget=0.1, requests=1, seed=9, per="request") == MOMENTS
    with pytest.raises(UsageError, match=r"unknown trace 'drif' \(did you mean drift\?\)"):
        trace_of("drif", CHOICES, budget=0.8, requests=3, seed=0, per="request")
    with pytest.raises(UsageError, match="--per all"):
        trace_of("drift", CHOICES, budget=0.8, requests=3, seed=0, per="all")


def test_the_static_policy_decides_the_same_at_every_moment() -> None:
    policy = policies_of(["static"], CHOICES, MOMENTS, None)["static"]
    runs = list(replay(CHOICES, {"static": policy}, MOMENTS, SPEED, {}, Silent()))
    assert len({one.gone for one in runs[0].happened}) == 1
    with pytest.raises(UsageError, match=r"unknown policy 'statik' \(did you mean static\?\)"):
        policies_of(["statik"], CHOICES, MOMENTS, None)


def test_each_policy_runs_over_the_whole_trace_in_order() -> None:
    policies = policies_of(["greedy", "none"], CHOICES, MOMENTS, None)
    runs = list(replay(CHOICES, policies, MOMENTS, SPEED, {}, Silent()))
    assert [run.policy for run in runs] == ["greedy", "none"]
    alone = simulate(CHOICES, "greedy", make_policy("greedy", CHOICES), MOMENTS, SPEED, {})
    assert [one.gone for one in runs[0].happened] == [one.gone for one in alone.happened]
