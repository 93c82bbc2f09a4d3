"""Pieces of work as tasks of a Ray cluster, whose nodes share the folder of the comparison."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from secateur.core.progress import Silent
from secateur.pipeline.compare.watcher import Watcher
from secateur.pipeline.compare.worker_pool import Failure, Task, WorkerLimits
from secateur_runtime.errors import MissingExtraError, SecateurError

RETRIES = 3
"""How often Ray repeats a task whose worker died."""


def require_ray() -> None:
    """Raise MissingExtraError unless Ray is installed."""
    if importlib.util.find_spec("ray") is None:
        raise MissingExtraError("--engine ray needs Ray: pip install 'secateur[ray]'")


def remote_make(folder: str, digest: str, name: str) -> dict[str, Any]:
    """Do every part of a row but its speed, wherever Ray runs this.

    Return the error and its exit code, or an empty dict.
    """
    from secateur.pipeline.compare.row_work import make
    from secateur.present.comparison_folder import read_job

    try:
        seen = read_job(Path(folder)).digest
        if seen != digest:
            return {
                "error": (
                    f"{folder} is another comparison on {os.uname().nodename}: give a folder that all nodes"
                    " share"
                ),
                "code": 2,
            }
        make(Path(folder), name, Silent())
    except SecateurError as error:
        return {"error": f"{error} (on {os.uname().nodename})", "code": error.exit_code}
    return {}


class Cluster:
    """Runs tasks on the running Ray cluster (`RAY_ADDRESS`, `ray start`), or on a local one of its own.

    folder: of the comparison, shared by all nodes. digest: of the model that it compares. limits: of a local
    cluster: tasks at once, CPUs that each reserves, bytes that all reserve together.
    """

    def __init__(self, folder: Path, digest: str, limits: WorkerLimits, watcher: Watcher) -> None:
        require_ray()
        self._folder = folder.resolve()
        self._digest = digest
        self._watcher = watcher
        self._limits = limits

    def run(self, tasks: Sequence[Task]) -> list[Failure]:
        """Do all tasks; return those that failed.

        A task whose worker dies is repeated, and continues at the block where it died.
        """
        import ray

        ours = not ray.is_initialized()
        if ours:
            ray.init(
                **self._own(), logging_level=logging.ERROR, log_to_driver=False, ignore_reinit_error=True
            )
        try:
            # Ray prints that a worker died to standard output, whatever it is told about logs; that belongs
            # to `--json`.
            with redirect_stdout(sys.stderr):
                return self._gather(ray, tasks)
        finally:
            if ours:
                ray.shutdown()

    def _own(self) -> Mapping[str, Any]:
        """Return the options of a local cluster; none for one that is running already."""
        if os.environ.get("RAY_ADDRESS"):
            return {}
        memory = {"_memory": self._limits.memory} if self._limits.memory else {}
        return {
            "address": "local",
            "num_cpus": self._limits.slots * self._limits.threads,
            "include_dashboard": False,
            **memory,
        }

    def _gather(self, ray: Any, tasks: Sequence[Task]) -> list[Failure]:
        # A worker of its own for each task, so that the peak of memory is its own too.
        options: dict[str, Any] = {"num_cpus": self._limits.threads, "max_retries": RETRIES, "max_calls": 1}
        if self._limits.memory:
            options["memory"] = self._limits.memory // self._limits.slots
        options["runtime_env"] = {
            "env_vars": {"OMP_NUM_THREADS": str(self._limits.threads), "OMP_WAIT_POLICY": "passive"}
        }
        work = ray.remote(**options)(remote_make)
        pending = {
            work.remote(str(self._folder), self._digest, name): name for task in tasks for name in task.names
        }
        for name in pending.values():
            self._watcher.started(name, "make")
        failures = []
        while pending:
            (done,), _ = ray.wait(list(pending), num_returns=1)
            name = pending.pop(done)
            failure = self._failure(ray, done, name)
            self._watcher.ended(name, failure.line if failure else "")
            failures += [failure] if failure else []
        return failures

    def _failure(self, ray: Any, done: Any, name: str) -> Failure | None:
        try:
            answer = ray.get(done)
        except ray.exceptions.RayError as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            return Failure(name, f"Ray gave it up: {lines[-1]}", 3)
        if answer:
            return Failure(name, answer["error"], answer["code"])
        return None
