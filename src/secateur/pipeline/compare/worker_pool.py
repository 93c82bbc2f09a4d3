"""Run tasks as processes of this machine, a fixed number at once, within a limit of memory."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO

from secateur.pipeline.compare.watcher import Watcher
from secateur_runtime.errors import ExitCode
from secateur_runtime.sensors.system_memory import tree_bytes

_EVERY = 0.1
_FULL = 0.96
"""Share of the memory at which a process is stopped: between two checks it can only take a little more."""


@dataclass(frozen=True, slots=True)
class Task:
    """What one process does: `action` to the rows `names`. alone: nothing else runs meanwhile.

    again: it was stopped, or died, before.
    """

    names: tuple[str, ...]
    action: str
    alone: bool = False
    again: bool = False


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """What processes may use.

    slots: processes at once. threads: of each. memory: bytes that this process and all it starts may hold
    together; 0 for no limit.
    """

    slots: int
    threads: int
    memory: int


@dataclass(frozen=True, slots=True)
class Failure:
    """Why nothing became of a row, in one line, and the exit code that says so."""

    name: str
    line: str
    code: int


@dataclass
class _Running:
    task: Task
    process: subprocess.Popen[bytes]
    log: IO[bytes]
    left: list[str]
    place: tuple[str, int, int] = ("", 0, 0)
    rest: bytes = b""
    too_large: bool = False


@dataclass
class WorkerPool:
    """Runs tasks as processes.

    command: the command line of a task, given the task and the bytes that it may take (0: no limit).
    peak: the most bytes held by all processes together, updated while it runs.
    """

    command: Callable[[Task, int], list[str]]
    limits: WorkerLimits
    watcher: Watcher
    peak: int = 0
    _running: list[_Running] = field(default_factory=list)
    _failures: list[Failure] = field(default_factory=list)

    def run(self, tasks: Sequence[Task]) -> list[Failure]:
        """Do all tasks; return what failed.

        A process that dies, or finds no memory, is tried once more with nothing running next to it.
        """
        waiting = deque(tasks)
        self._failures = []
        with selectors.DefaultSelector() as selector, self._ending():
            while waiting or self._running:
                self._fill(waiting, selector)
                self._listen(selector)
                self._weigh()
                for ended in [one for one in self._running if one.process.poll() is not None]:
                    selector.unregister(self._output(ended))
                    self._hear(ended, self._output(ended).read())
                    self._running.remove(ended)
                    waiting.extend(self._retries(ended))
        return self._failures

    def _fill(self, waiting: deque[Task], selector: selectors.BaseSelector) -> None:
        while waiting and len(self._running) < self.limits.slots:
            if self._running and (waiting[0].alone or self._running[0].task.alone):
                return
            task = waiting.popleft()
            started = self._start(task)
            self._running.append(started)
            selector.register(self._output(started), selectors.EVENT_READ, started)

    def _start(self, task: Task) -> _Running:
        limits = self.limits
        threads = str(limits.threads * limits.slots if task.alone else limits.threads)
        log = tempfile.TemporaryFile()  # noqa: SIM115
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        process = subprocess.Popen(
            self.command(task, self._share(task)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            start_new_session=True,
        )
        return _Running(task, process, log, list(task.names))

    def _share(self, task: Task) -> int:
        """Return the bytes that the process of a task may take; 0 for no limit."""
        limits = self.limits
        if not limits.memory:
            return 0
        held = tree_bytes(os.getpid())
        if task.alone or limits.slots == 1:
            return int(_FULL * max(limits.memory - held, 0))
        own = held - sum(tree_bytes(one.process.pid) for one in self._running)
        return max(int(_FULL * (limits.memory - own) / limits.slots), 1)

    def _listen(self, selector: selectors.BaseSelector) -> None:
        for key, _ in selector.select(_EVERY):
            self._hear(key.data, os.read(key.fd, 1 << 16))

    def _hear(self, running: _Running, data: bytes) -> None:
        *lines, running.rest = (running.rest + data).split(b"\n")
        for line in lines:
            # Libraries print too.
            with contextlib.suppress(ValueError):
                self._told(running, json.loads(line))

    def _told(self, running: _Running, body: object) -> None:
        if not isinstance(body, dict):
            return
        if "begin" in body:
            self.watcher.started(str(body["begin"]), running.task.action)
        elif "end" in body:
            running.left.remove(str(body["end"]))
            self._end(str(body["end"]), str(body.get("error", "")), int(body.get("code", 0)))
        elif "task" in body:
            running.place = (str(body["task"]), int(body["done"]), int(body["total"]))
            self.watcher.moved(running.left[0], *running.place)
        elif "step" in body:
            task, done, total = running.place
            running.place = (task, done + 1, total)
            self.watcher.moved(running.left[0], *running.place)

    def _end(self, name: str, line: str, code: int) -> None:
        if line:
            self._failures.append(Failure(name, line, code))
        self.watcher.ended(name, line)

    def _weigh(self) -> None:
        """Stop the youngest process before memory is full."""
        total = tree_bytes(os.getpid())
        self.peak = max(self.peak, total)
        if self.limits.memory and total > _FULL * self.limits.memory and self._running:
            self._running[-1].too_large = True
            _kill(self._running[-1].process)
            self._running[-1].process.wait()

    def _retries(self, ended: _Running) -> list[Task]:
        """Return the tasks that must be repeated after a process has ended."""
        ended.log.seek(0)
        printed = ended.log.read().decode("utf-8", "replace").strip().splitlines()
        ended.log.close()
        self._output(ended).close()
        if not ended.left:
            return []
        if not ended.task.again or ended.left[0] != ended.task.names[0]:
            self.watcher.note(
                f"{ended.left[0]}: stopped, {_reason(ended, printed)}; runs again with nothing next to it"
            )
            return [Task(tuple(ended.left), ended.task.action, alone=True, again=True)]
        first, *others = ended.left
        self._end(first, f"stopped twice, {_reason(ended, printed)}", ExitCode.FAILED)
        return [Task(tuple(others), ended.task.action, alone=True)] if others else []

    @contextmanager
    def _ending(self) -> Iterator[None]:
        """Kill every process on exit, whatever happens."""
        try:
            yield
        finally:
            for one in self._running:
                _kill(one.process)
                one.process.wait()
                one.log.close()
                self._output(one).close()

    @staticmethod
    def _output(running: _Running) -> IO[bytes]:
        assert running.process.stdout is not None
        return running.process.stdout


def python(program: str, *arguments: object) -> list[str]:
    """Return the command that runs a program with this Python."""
    return [sys.executable, "-c", program, *map(str, arguments)]


def _reason(ended: _Running, printed: Sequence[str]) -> str:
    if ended.too_large or any("MemoryError" in line or "allocate memory" in line for line in printed):
        return "it needs more memory than --max-ram gives"
    return f"exit {ended.process.returncode}: {printed[-1] if printed else 'it printed nothing'}"


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
