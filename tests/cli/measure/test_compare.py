"""`secateur compare` as a user meets it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.conftest import Maker

from secateur.cli.main import run as main
from secateur.cli.measure.compare import (
    QUICK,
    QUICK_METHODS,
    AuditOptions,
    ProtocolOptions,
    RowOptions,
    WorkOptions,
)
from secateur.pipeline.compare.compare import Running
from secateur.pipeline.compare.protocol import Protocol
from secateur_runtime.errors import UsageError
from secateur_runtime.sensors.system_memory import tree_bytes

SMALL = [
    "--samples",
    "2",
    "--calib-window",
    "64",
    "--window",
    "64",
    "-n",
    "2",
    "--prompt",
    "16",
    "--tokens",
    "4",
    "--repeat",
    "1",
]


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["secateur", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        main()
        sys.exit(0)
    return int(stopped.value.code or 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--methods", "wnada"], "unknown method 'wnada' (did you mean wanda?)"),
        (["--methods", "width:criterion=flop"], "did you mean flap"),
        (["--targets", "parms=80%"], "did you mean params"),
        (["--targets", "2:4+ratio=0.3"], "joins a pattern"),
        (["--methods", "wanda", "--targets", "size=1kB"], "counts bytes"),
        (["--engine", "rya"], "unknown --engine 'rya' (did you mean ray?)"),
        (["--backends", "torhc"], "unknown backend 'torhc' (did you mean torch?)"),
        (["--max-ram", "much"], "write 8G or 900M"),
        (["--text", "none.txt", "--methods", "magnitude"], "none.txt"),
        (["--compute", "int8"], "unknown --compute"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    tiny: Maker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    model = tiny("llama")
    # What transformers prints where this test is the first to make the model.
    capsys.readouterr()
    written = ("-o", tmp_path / "out", "--quick", "--backends", "torch")
    assert _run(monkeypatch, "compare", model, *written, *options) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("error: ")
    assert message in output.err
    assert output.err.count("\n") == 1
    assert not (tmp_path / "out" / "compare.json").exists()


def test_something_else_is_not_written_over(
    tiny: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photo.jpg").touch()
    assert _run(monkeypatch, "compare", tiny("llama"), "-o", tmp_path, "--quick") == 2
    assert "holds something else than a comparison" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]


@pytest.mark.parametrize(
    ("extra", "options"), [("ray", ["--engine", "ray"]), ("llamacpp", ["--backends", "llamacpp"])]
)
def test_a_missing_extra(
    tiny: Maker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    extra: str,
    options: list[str],
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert (
        _run(monkeypatch, "compare", tiny("llama"), "-o", tmp_path / "out", "--backends", "torch", *options)
        == 2
    )
    assert f"pip install 'secateur[{extra}]'" in capsys.readouterr().err


def test_defaults_are_those_of_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secateur.runtime.llamacpp.has_llamacpp", lambda: True)
    assert ProtocolOptions().protocol(AuditOptions(), quick=False) == Protocol()
    assert WorkOptions().running() == Running()
    assert RowOptions().rows() == {}


def test_quick_is_less_text_unless_more_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secateur.runtime.llamacpp.has_llamacpp", lambda: False)
    quick = ProtocolOptions(samples=16, backends=None).protocol(AuditOptions(), quick=True)
    assert (quick.calibration.samples, quick.calibration.window) == (16, QUICK["calib_window"])
    assert (quick.window, quick.count, quick.repeat, quick.backends) == (1024, 4, 7, ("torch",))
    assert RowOptions(quick=True, targets=["2:4"]).rows() == {"methods": QUICK_METHODS, "targets": ["2:4"]}
    assert ProtocolOptions(backends="none").protocol(AuditOptions(), quick=False).backends == ()
    assert ProtocolOptions(backends="torch, native").protocol(AuditOptions(), quick=True).backends == (
        "torch",
        "native",
    )


def test_a_limit_counts_for_what_is_asked() -> None:
    tasks = ProtocolOptions(backends="none").protocol(AuditOptions(tasks="a, b", limit=4), quick=False)
    assert (tasks.tasks, tasks.limit, tasks.bias_limit) == (("a", "b"), 4, None)
    audit = ProtocolOptions(backends="none").protocol(AuditOptions(bias=True, limit=4), quick=False)
    assert (audit.limit, audit.bias, audit.bias_limit) == (None, True, 4)
    with pytest.raises(UsageError, match="--limit would do nothing here: add --tasks or --bias"):
        AuditOptions(limit=4)


def _command(model: Path, out: Path, *options: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "secateur",
        "compare",
        str(model),
        "-o",
        str(out),
        "--targets",
        "2:4",
        *SMALL,
        *options,
    ]


@pytest.mark.slow
def test_a_killed_run_continues(tiny: Maker, tmp_path: Path) -> None:
    """Killed once a row is finished.

    The second run repeats nothing that was, and its workers are the only ones left.
    """
    command = _command(
        tiny("llama"),
        tmp_path / "out",
        "--methods",
        "magnitude,wanda",
        "--backends",
        "torch",
        "--workers",
        "2",
        "--json",
    )
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list((tmp_path / "out").rglob("quality.json")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "cells").rglob("quality.json")}
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert [row["row"] for row in rows] == ["dense", "q8_0", "q4_0", "magnitude at 2:4", "wanda at 2:4"]
    assert all({record["name"] for record in row["records"]} >= {"perplexity", "parameters"} for row in rows)
    assert all(path.stat().st_mtime_ns == when for path, when in finished.items())


@pytest.mark.slow
def test_four_workers_stay_within_their_memory(tiny: Maker, tmp_path: Path) -> None:
    limit = 2_600_000_000
    methods = [
        "--methods",
        "magnitude,wanda,random,ria",
        "--backends",
        "none",
        "--workers",
        "4",
        "--max-ram",
        str(limit),
        "--json",
    ]
    process = subprocess.Popen(
        _command(tiny("llama"), tmp_path / "out", *methods), stdout=subprocess.PIPE, text=True
    )
    with _watched(process.pid) as seen:
        output, _ = process.communicate()
    body = json.loads(output)
    assert process.returncode == 0
    assert not [row for row in body["rows"] if row["failed"]]
    assert limit / 4 < max(seen) <= limit
    assert body["peak_memory"] <= limit


@contextmanager
def _watched(pid: int) -> Iterator[list[int]]:
    """Look at the memory of a process and all it started, from outside, until exit."""
    seen, over = [0], threading.Event()

    def look() -> None:
        while not over.wait(0.05):
            seen.append(tree_bytes(pid))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


@pytest.mark.slow
def test_ray_survives_a_worker_that_is_killed(tiny: Maker, tmp_path: Path) -> None:
    """Rows are tasks of a local Ray cluster.

    One of its workers is killed while it prunes, and the row is done again.
    """
    pytest.importorskip("ray", reason="pip install 'secateur[ray]'")
    options = [
        "--methods",
        "magnitude,wanda,sparsegpt",
        "--backends",
        "none",
        "--workers",
        "2",
        "--engine",
        "ray",
        "--json",
    ]
    process = subprocess.Popen(
        _command(tiny("llama"), tmp_path / "out", *options), stdout=subprocess.PIPE, text=True
    )
    killed = 0
    while not killed and process.poll() is None:
        time.sleep(0.05)
        if list((tmp_path / "out").rglob("pruned.json")):
            killed = _kill_a_worker(process.pid)
    output, _ = process.communicate()
    assert killed
    assert process.returncode == 0
    rows = json.loads(output)["rows"]
    assert [row["row"] for row in rows][3:] == ["magnitude at 2:4", "wanda at 2:4", "sparsegpt at 2:4"]
    assert all(any(record["name"] == "perplexity" for record in row["records"]) for row in rows)


def _kill_a_worker(pid: int) -> int:
    """Kill one process of the tree that Ray says is doing our work.

    Return its id, or 0 if there is none just now.
    """
    waiting = [pid]
    while waiting:
        one = waiting.pop()
        try:
            title = Path(f"/proc/{one}/cmdline").read_bytes()
            waiting += [
                int(child)
                for thread in os.listdir(f"/proc/{one}/task")
                for child in Path(f"/proc/{one}/task/{thread}/children").read_text().split()
            ]
        except OSError:
            continue
        if title.startswith(b"ray::remote_make"):
            os.kill(one, signal.SIGKILL)
            return one
    return 0
