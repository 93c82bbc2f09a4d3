"""Protocols survive the job file, and a later run in the same folder has to agree."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from secateur.calibrate.calibration import Calibration
from secateur.pipeline.compare.protocol import Protocol, agreed, protocol_of
from secateur.present.comparison_folder import ComparisonJob, read_job
from secateur_runtime.errors import UsageError

PLAIN = Protocol(
    calibration=Calibration(samples=3, window=32), seed=5, window=64, count=2, backends=("torch",), repeat=7
)


def _job(protocol: Protocol, folder: Path) -> ComparisonJob:
    """Return the job of a protocol as it reads back from its file."""
    digest = "sha256:" + "0" * 64
    job = ComparisonJob(
        ref="x", name="x", digest=digest, parameters=1, protocols=protocol.sections(), rows=()
    )
    job.write(folder)
    return read_job(folder)


def test_a_protocol_comes_back(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    (tmp_path / "sentences.tsv").write_text("")
    asking = replace(
        PLAIN,
        tasks=("arc_easy",),
        limit=4,
        shots=1,
        datasets=str(tmp_path),
        bias=True,
        bias_limit=9,
        winogender=str(tmp_path / "sentences.tsv"),
    )
    for protocol in (PLAIN, Protocol(), asking):
        assert asdict(protocol_of(_job(protocol, tmp_path))) == asdict(protocol)


def test_sections_are_plain_data_with_digests() -> None:
    sections = PLAIN.sections()
    assert json.loads(json.dumps(sections)) == sections
    assert sections["calibration"]["seed"] == 5
    assert sections["calibration"]["digest"] == sections["quality"]["digest"], "both read the builtin text"
    assert sections["quality"]["digest"].startswith("sha256:")
    assert (sections["tasks"], sections["bias"]) == ({}, {})
    own = replace(PLAIN, calibration=Calibration(text="self"))
    assert "digest" not in own.sections()["calibration"], "the model has not written it yet"


def test_parts_follow_what_is_asked() -> None:
    assert PLAIN.parts == ("pruned", "file", "quality")
    assert replace(PLAIN, tasks=("a",), bias=True).parts == ("pruned", "file", "quality", "tasks", "bias")
    assert (PLAIN.speed.repeat, PLAIN.speed.prompt, PLAIN.speed.tokens) == (7, 256, 64)


def test_optional_sections_may_be_added_and_left_out() -> None:
    written = {"quality": {"window": 64}, "tasks": {}, "bias": {"limit": 3}}
    asked = {"quality": {"window": 64}, "tasks": {"limit": 4}, "bias": {}}
    assert agreed(asked, written, "out") == {
        "quality": {"window": 64},
        "tasks": {"limit": 4},
        "bias": {"limit": 3},
    }


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            {"quality": {"window": 32}},
            r"^out was measured with quality window 64, not 32: give the same options",
        ),
        ({"bias": {"limit": 4}}, r"^out was measured with bias limit 3, not 4"),
        ({"speed": {"threads": 1}}, r"^out was measured with speed threads None, not 1"),
    ],
)
def test_a_difference_is_named(asked: dict[str, dict[str, int]], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        agreed(asked, {"quality": {"window": 64}, "bias": {"limit": 3}}, "out")
