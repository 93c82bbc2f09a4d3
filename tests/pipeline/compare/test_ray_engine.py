"""Tasks of a Ray cluster: what one returns, what is reserved for it, and which failures come of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.present.comparisons import DIGEST, job

from secateur.pipeline.compare import ray_engine
from secateur.pipeline.compare.ray_engine import Cluster, remote_make, require_ray
from secateur.pipeline.compare.watcher import Unwatched
from secateur.pipeline.compare.worker_pool import Failure, Task, WorkerLimits
from secateur_runtime.errors import MissingExtraError, UsageError

OTHER = "sha256:" + "1" * 64


def test_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"^--engine ray needs Ray: pip install 'secateur\[ray\]'$"):
        require_ray()


def test_a_task_refuses_another_comparison(tmp_path: Path) -> None:
    """A node that does not share the folder may have another one of the same name."""
    job().write(tmp_path)
    found = remote_make(str(tmp_path), OTHER, "dense")
    assert found["code"] == 2
    assert "is another comparison on" in found["error"]
    assert "give a folder that all nodes share" in found["error"]


def test_a_task_returns_the_error_of_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job().write(tmp_path)
    made: list[str] = []
    monkeypatch.setattr(
        "secateur.pipeline.compare.row_work.make", lambda folder, name, progress: made.append(name)
    )
    assert remote_make(str(tmp_path), DIGEST, "dense") == {}
    assert made == ["dense"]

    def fails(folder: Path, name: str, progress: object) -> None:
        raise UsageError("no such row")

    monkeypatch.setattr("secateur.pipeline.compare.row_work.make", fails)
    found = remote_make(str(tmp_path), DIGEST, "dense")
    assert found["error"].startswith("no such row (on ")
    assert found["code"] == UsageError.exit_code


class _RayError(Exception):
    """What Ray raises for a worker that died."""


class _Ray:
    """A cluster of one process: what the engine uses of Ray, with the options that it is given."""

    class exceptions:
        """Where Ray keeps its errors."""

        RayError = _RayError

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers
        self.options: dict[str, Any] = {}

    def remote(self, **options: Any) -> Any:
        self.options = options

        def submit(function: object) -> Any:
            class _Submitted:
                @staticmethod
                def remote(folder: str, digest: str, name: str) -> str:
                    return name

            return _Submitted

        return submit

    def wait(self, pending: Sequence[str], num_returns: int) -> tuple[list[str], list[str]]:
        return list(pending[:num_returns]), list(pending[num_returns:])

    def get(self, name: str) -> Any:
        answer = self.answers[name]
        if isinstance(answer, Exception):
            raise answer
        return answer


class _Seen(Unwatched):
    """Remembers what is told of rows."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def started(self, name: str, what: str) -> None:
        self.events.append(f"+{name}")

    def ended(self, name: str, line: str) -> None:
        self.events.append(f"-{name} {line}".strip())


def _cluster(monkeypatch: pytest.MonkeyPatch, folder: Path, limits: WorkerLimits) -> tuple[Cluster, _Seen]:
    monkeypatch.setattr(ray_engine, "require_ray", lambda: None)
    seen = _Seen()
    return Cluster(folder, DIGEST, limits, seen), seen


def test_failures_and_what_is_reserved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster, seen = _cluster(monkeypatch, tmp_path, WorkerLimits(2, 3, 1000))
    died = _RayError("The worker died.\nIts node ran out of memory.")
    ray = _Ray({"a": {}, "b": {"error": "out of reach", "code": 2}, "c": died})
    found = cluster._gather(ray, [Task(("a", "b"), "make"), Task(("c",), "make")])
    assert found == [
        Failure("b", "out of reach", 2),
        Failure("c", "Ray gave it up: Its node ran out of memory.", 3),
    ]
    assert (ray.options["num_cpus"], ray.options["memory"], ray.options["max_calls"]) == (3, 500, 1)
    assert ray.options["runtime_env"]["env_vars"]["OMP_NUM_THREADS"] == "3"
    assert seen.events[:4] == ["+a", "+b", "+c", "-a"]
    assert seen.events[4] == "-b out of reach"


def test_a_cluster_of_its_own_has_what_the_tasks_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    cluster, _ = _cluster(monkeypatch, tmp_path, WorkerLimits(2, 3, 1000))
    own = cluster._own()
    assert (own["address"], own["num_cpus"], own["_memory"]) == ("local", 6, 1000)
    assert "_memory" not in _cluster(monkeypatch, tmp_path, WorkerLimits(2, 3, 0))[0]._own()
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert cluster._own() == {}, "one that runs already knows what it has"
