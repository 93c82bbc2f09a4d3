"""Processes at work: a fixed number, within their memory, repeated when they die, gone at the end."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from secateur.pipeline.compare.watcher import Unwatched
from secateur.pipeline.compare.worker_pool import Failure, Task, WorkerLimits, WorkerPool, python
from secateur_runtime.sensors.system_memory import system_memory, tree_bytes

if not Path("/proc/self/statm").exists():
    pytest.skip("memory is read from /proc", allow_module_level=True)

MB = 1 << 20
_OPEN = "import json, os, pathlib, sys, time\ndef tell(**body): print(json.dumps(body), flush=True)\n"
_CLOSE = "for name in sys.argv[3:]:\n tell(begin=name)\n work(name)\n tell(end=name)\n"


class Seen(Unwatched):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.notes: list[str] = []

    def started(self, name: str, what: str) -> None:
        self.events.append(f"+{name}")

    def moved(self, name: str, task: str, done: int, total: int) -> None:
        self.events.append(f"{name} {task} {done}/{total}")

    def ended(self, name: str, line: str) -> None:
        self.events.append(f"-{name}{line and ': '}{line}")

    def note(self, line: str) -> None:
        self.notes.append(line)


def _pool(work: str, *, slots: int = 2, limit: int = 0) -> tuple[WorkerPool, Seen]:
    """Return a pool whose processes do `work` to the name of a row.

    The folder is argv[1], the share of memory argv[2].
    """
    seen = Seen()
    program = _OPEN + work + _CLOSE

    def command(task: Task, share: int) -> list[str]:
        return python(program, os.getcwd(), share, *task.names)

    return WorkerPool(command, WorkerLimits(slots, 1, limit), seen), seen


def _tasks(names: str, *, alone: bool = False) -> list[Task]:
    return [Task((name,), "make", alone=alone) for name in names]


_TOGETHER = """
def work(name):
    here = pathlib.Path(sys.argv[1])
    (here / name).touch()
    while len(list(here.iterdir())) < 2: time.sleep(0.02)
    tell(task='prune', total=2, done=0)
    tell(step='x')
"""


def test_so_many_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first two wait for each other, so that they end only if they run together."""
    monkeypatch.chdir(tmp_path)
    pool, seen = _pool(_TOGETHER, slots=2)
    assert pool.run(_tasks("abc")) == []
    assert seen.events.index("+c") > min(seen.events.index("-a"), seen.events.index("-b"))
    assert [event for event in seen.events if event.startswith("a")] == ["a prune 0/2", "a prune 1/2"]


def test_alone_is_alone() -> None:
    pool, seen = _pool("def work(name): time.sleep(0.2)\n", slots=3)
    pool.run([*_tasks("ab"), *_tasks("c", alone=True), *_tasks("d")])
    after = seen.events.index("+c")
    assert {"-a", "-b"} <= set(seen.events[:after])
    assert seen.events[after + 1] == "-c"


def test_what_the_user_can_mend_is_not_tried_again() -> None:
    pool, seen = _pool("def work(name): tell(end=name, error='out of reach', code=2); sys.exit(0)\n")
    assert pool.run(_tasks("a")) == [Failure("a", "out of reach", 2)]
    assert seen.events == ["+a", "-a: out of reach"]


def test_what_dies_is_tried_once_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    once = (
        "def work(name):\n mark = pathlib.Path(sys.argv[1]) / name\n if not mark.exists(): mark.touch();"
        " os.kill(os.getpid(), 9)\n"
    )
    pool, seen = _pool(once)
    assert pool.run([Task(("a", "b"), "time")]) == []
    assert seen.events == ["+a", "+a", "-a", "+b", "+b", "-b"]
    pool, _ = _pool("def work(name): print('no such device', file=sys.stderr); sys.exit(7)\n")
    (failure,) = pool.run(_tasks("a"))
    assert failure == Failure("a", "stopped twice, exit 7: no such device", 3)


def test_a_row_that_dies_twice_leaves_the_others_alone() -> None:
    pool, seen = _pool("def work(name):\n if name == 'b': os._exit(1)\n")
    failures = pool.run([Task(("a", "b", "c"), "time", alone=True)])
    assert [failure.name for failure in failures] == ["b"]
    assert "-c" in seen.events


def test_memory_is_never_more_than_was_given() -> None:
    """Four that take 120 MB each, where there is room for two of them.

    The kernel refuses what is more than a share, and they go on one by one.
    """
    own = tree_bytes(os.getpid())
    hungry = (
        "import resource\ndef work(name):\n resource.setrlimit(resource.RLIMIT_DATA, (int(sys.argv[2]) - (16"
        " << 20),) * 2)\n"
    )
    pool, seen = _pool(
        hungry + " held = [bytearray(10 << 20) for _ in range(12)]; time.sleep(0.3)\n",
        slots=4,
        limit=own + 330 * MB,
    )
    assert pool.run(_tasks("abcd")) == []
    assert own < pool.peak <= pool.limits.memory
    assert (
        len(
            [
                line
                for line in seen.notes
                if "it needs more memory than --max-ram gives; runs again with nothing next to it" in line
            ]
        )
        == 4
    )


def test_the_youngest_stops_where_no_kernel_does() -> None:
    grown = (
        "def work(name):\n held = []\n for _ in range(12): held.append(bytearray(10 << 20));"
        " time.sleep(0.1)\n time.sleep(1)\n"
    )
    pool, seen = _pool(grown, limit=tree_bytes(os.getpid()) + 220 * MB)
    assert pool.run(_tasks("ab")) == []
    (note,) = seen.notes
    assert note.startswith("b: stopped, it needs more memory")


def test_one_that_is_too_large_says_so() -> None:
    pool, _ = _pool(
        "def work(name):\n held = []\n while True: held.append(bytearray(10 << 20)); time.sleep(0.02)\n",
        limit=tree_bytes(os.getpid()) + 150 * MB,
    )
    (failure,) = pool.run(_tasks("a"))
    assert failure.line == "stopped twice, it needs more memory than --max-ram gives"


def test_nothing_goes_on_behind_the_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pool, seen = _pool(
        "def work(name):\n (pathlib.Path(sys.argv[1]) / 'pid').write_text(str(os.getpid()))\n tell(task='t',"
        " total=1, done=0)\n time.sleep(60)\n"
    )

    def interrupted(name: str, task: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(seen, "moved", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pool.run(_tasks("a"))
    _until(lambda: not _alive(int((tmp_path / "pid").read_text())))


def test_memory_of_a_tree() -> None:
    assert tree_bytes(os.getpid()) > 10 * MB
    assert tree_bytes(1 << 30) == 0
    assert system_memory().free > 10 * MB


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _until(holds: Callable[[], bool]) -> None:
    for _ in range(100):
        if holds():
            return
        time.sleep(0.05)
    pytest.fail(f"still so after 5 s ({sys.platform})")
