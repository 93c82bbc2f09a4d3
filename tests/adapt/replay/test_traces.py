"""Traces: made up, written down, read back, and refused."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur.adapt.replay.traces import (
    KINDS,
    SCENARIOS,
    Kind,
    Moment,
    Recorder,
    read_trace,
    synthetic,
    write_trace,
)
from secateur_runtime.errors import OutputError, TraceError, UsageError


def need(batch: int, tokens: int) -> float:
    return 1e6 + 100.0 * batch * tokens


def shares(moments: list[Moment]) -> list[float]:
    return [moment.available / need(moment.batch, moment.tokens + moment.remaining) for moment in moments]


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_makes_the_same_trace(kind: Kind) -> None:
    one, same, other = (synthetic(kind, need, budget=0.8, requests=20, seed=seed) for seed in (3, 3, 4))
    assert one == same
    assert (one != other) == (kind != "steady" or SCENARIOS[0] != SCENARIOS[1])
    assert [
        (moments[0].batch, moments[7].tokens) for moments in (one[i : i + 8] for i in range(0, 80, 8))
    ] == list(SCENARIOS)
    for before, after in pairwise(one):
        same_request = before.request == after.request
        assert after.time > before.time
        assert not same_request or (
            after.tokens > before.tokens
            and after.tokens + after.remaining == before.tokens + before.remaining
        )
        assert same_request or before.remaining == 0


def test_memory_moves_as_its_kind_says() -> None:
    steady, drift, bursts = (
        shares(synthetic(kind, need, budget=0.8, requests=300, seed=0)) for kind in KINDS
    )
    assert {round(share, 9) for share in steady} == {0.8}
    moved = [abs(share - 0.8) for share in drift]
    assert max(moved) == pytest.approx(0.1)
    assert sum(each > 0.02 for each in moved) > len(moved) / 2
    deep = [share < 0.68 for share in bursts]
    assert 0.05 < sum(deep) / len(deep) < 0.4
    assert min(bursts) >= 0.4 - 1e-9


def test_one_memory_for_all_requests() -> None:
    moments = synthetic("steady", need, budget=0.6, requests=10, seed=0, per="device")
    assert {moment.available for moment in moments} == {0.6 * need(8, 4096)}


def test_a_trace_reads_back_as_it_was_written(tmp_path: Path) -> None:
    moments = synthetic("bursts", need, budget=0.7, requests=5, seed=1)
    write_trace(tmp_path / "trace.jsonl", moments, about="test")
    assert read_trace(tmp_path / "trace.jsonl") == moments
    with pytest.raises(OutputError, match="exists"):
        write_trace(tmp_path / "trace.jsonl", moments, about="test")


def test_a_recorder_that_was_killed_leaves_whole_moments(tmp_path: Path) -> None:
    moments = synthetic("drift", need, budget=0.7, requests=1, seed=1)
    path = tmp_path / "trace.jsonl"
    with Recorder(path, about="test") as record:
        record(moments[0])
        record(moments[1])
        path.write_text(path.read_text() + '{"time": 3, "requ')
    assert read_trace(path) == moments[:2]


HEAD = '{"trace": 1, "about": ""}\n'
LINE = json.dumps(asdict(synthetic("steady", need, budget=1, requests=1, seed=0)[1])) + "\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is no trace"),
        ("[1]\n", "is no trace"),
        ('{"trace": 2}\n', "is no trace"),
        (HEAD, "holds no moment"),
        (HEAD + "{}\n", "line 2: no moment of exactly time, request"),
        (HEAD + LINE.replace('"batch": 1', '"batch": 0'), "line 2: batch is 0"),
        (HEAD + LINE.replace('"batch": 1', '"batch": 1.5'), "line 2: batch is 1.5"),
        (HEAD + LINE.replace('"batch": 1', '"batch": true'), "line 2: batch is True"),
        (HEAD + LINE.replace('"time": 1.0', '"time": NaN'), "line 2: time is nan"),
        (HEAD + LINE + LINE.replace('"time": 1.0', '"time": 0.5'), "line 3: time or request goes back"),
    ],
)
def test_what_is_no_trace_is_refused_with_its_line(text: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text(text)
    with pytest.raises(TraceError, match=problem):
        read_trace(path)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_trace_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("trace") / "trace.jsonl"
    path.write_bytes(HEAD.encode() + data)
    try:
        assert read_trace(path)
    except TraceError as error:
        assert "\n" not in str(error)


def test_what_cannot_be_made_up_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean drift"):
        synthetic("drif", need, budget=0.8, requests=1, seed=0)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="budget of 0 "):
        synthetic("drift", need, budget=0, requests=1, seed=0)
    with pytest.raises(TraceError, match="cannot read"):
        read_trace(tmp_path / "none.jsonl")
    with pytest.raises(OutputError, match="cannot write"):
        Recorder(tmp_path / "no" / "folder.jsonl", about="")
