"""Compare methods of pruning on one model.

Every row has the same size, the same calibration and the same measurements.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from secateur.core.graph import Graph
from secateur.model.handle import ModelHandle, open_model
from secateur.model.native_support import check_native
from secateur.model.transformers_model import transformers_config
from secateur.pipeline.bench.bench import BACKENDS
from secateur.pipeline.compare import worker
from secateur.pipeline.compare.protocol import Protocol, agreed, protocol_of
from secateur.pipeline.compare.ray_engine import Cluster, require_ray
from secateur.pipeline.compare.row import DENSE, LLAMACPP, NATIVE
from secateur.pipeline.compare.row_tasks import check_asked
from secateur.pipeline.compare.row_work import tidy
from secateur.pipeline.compare.rows import DEFAULT, RowMethod, Size, methods_named, parsed, rows_of
from secateur.pipeline.compare.watcher import Unwatched, Watcher
from secateur.pipeline.compare.worker_pool import Failure, Task, WorkerLimits, WorkerPool, python
from secateur.present.comparison_folder import (
    JOB,
    Cell,
    ComparisonJob,
    ComparisonRow,
    cell_folder,
    read_cells,
    read_job,
    write_json,
)
from secateur.runtime.llamacpp import require_llamacpp
from secateur_runtime.cores import check_threads, usable_cores
from secateur_runtime.errors import OutputError, UsageError, nearest
from secateur_runtime.files import LOCK, locked
from secateur_runtime.kernels.library import require_kernels
from secateur_runtime.sensors.system_memory import system_memory

ENGINES = ("local", "ray")
TARGETS = ("ratio=0.2", "2:4")
_IMPORTS = 480 << 20
"""Bytes that a worker holds before it has read a weight, with a margin."""
_HARNESS = 480 << 20
"""Bytes that lm-eval, its data and the states of a batch add."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """How the work is done; only times depend on it.

    workers: rows at once, None for as many as there are cores. max_ram: bytes that all processes together may
    hold, None for the free memory. engine: of `ENGINES`. keep: leave every pruned model in the folder;
    without it, the plan makes the model again.
    """

    workers: int | None = None
    max_ram: int | None = None
    engine: str = "local"
    keep: bool = False


@dataclass(frozen=True, slots=True)
class Compared:
    """The state of a comparison.

    cells: its rows. failures: rows of this run that failed. left_out: rows that were not asked for, in words.
    peak: the most bytes held by all processes, 0 where it was not measured.
    """

    folder: Path
    job: ComparisonJob
    cells: tuple[Cell, ...]
    failures: tuple[Failure, ...] = ()
    left_out: tuple[str, ...] = ()
    peak: int = 0


def compare(
    model: str,
    out: str | Path,
    *,
    methods: Sequence[str] = DEFAULT,
    targets: Sequence[str] = TARGETS,
    protocol: Protocol | None = None,
    running: Running | None = None,
    watcher: Watcher | None = None,
) -> Compared:
    """Prune `model` by every method to every target, measure all alike, and keep the results in `out`.

    methods, targets: as `RowMethod.parse` and `Size.parse` read them. What `out` holds already is not
    repeated.
    Raises UsageError for a method, a target or an option that cannot work, or for a folder measured
    otherwise, RecordError for a damaged one, MissingExtraError for an optional package. Rows that fail do not
    stop the others: they are in `failures`.
    """
    out = Path(out)
    protocol = protocol or Protocol()
    running = running or Running()
    watcher = watcher or Unwatched()
    _check(protocol, running)
    native = NATIVE in protocol.backends
    rows, left_out = rows_of(methods_named(methods), parsed(targets, Size.parse, "targets"), native=native)
    opened = open_model(model)
    if native:
        config = opened.source.config
        check_native(opened.source.ref, opened.family, transformers_config(config))
    for row in rows:
        if row.target:
            RowMethod.parse(row.method).goal(Size.parse(row.target), opened.graph)
    _check_folder(out)
    with locked(out, out):
        job = _job(opened, out, rows, protocol)
        failures, peak = _work(_Site(out, job, opened.graph, protocol_of(job), running, watcher), rows)
        return Compared(out, job, tuple(read_cells(out, job)), tuple(failures), left_out, peak)


@dataclass(frozen=True, slots=True)
class _Site:
    out: Path
    job: ComparisonJob
    graph: Graph
    protocol: Protocol
    running: Running
    watcher: Watcher

    @property
    def workers(self) -> int:
        """Rows at once: no more than memory can hold."""
        return max(1, min(self.running.workers or usable_cores(), self.limit // self._each()))

    @property
    def threads(self) -> int:
        """Threads of each row."""
        return max(1, usable_cores() // self.workers)

    @property
    def limit(self) -> int:
        """Bytes for all processes together."""
        return self.running.max_ram or int(0.9 * system_memory().free)

    def _each(self) -> int:
        """Return an estimate of the bytes that one worker holds at most.

        Hidden states three times, a few blocks, the vocabulary's matrices, and a 16-bit file.
        """
        calibration = self.protocol.calibration
        protocol = self.protocol
        tokens = max(calibration.samples * calibration.window, protocol.count * protocol.window)
        states = 3 * 4 * tokens * self.graph.hidden_size
        block = max(
            sum(self.graph.tensors[name].numel for name in block.tensors) for block in self.graph.blocks
        )
        vocabulary = 2 * 4 * self.graph.vocab_size * self.graph.hidden_size
        asked = _HARNESS + 4 * self.graph.parameters if protocol.tasks or protocol.bias else 0
        return _IMPORTS + max(states + 8 * 4 * block + vocabulary + 2 * self.graph.parameters, asked)

    def pool(self) -> WorkerPool:
        """Return the pool of processes on this machine."""

        def command(task: Task, share: int) -> list[str]:
            return python(worker.START, self.out, task.action, share, os.getpid(), *task.names)

        return WorkerPool(command, WorkerLimits(self.workers, self.threads, self.limit), self.watcher)


def _work(site: _Site, rows: Sequence[ComparisonRow]) -> tuple[list[Failure], int]:
    """Make what is not made, then time what is not timed, one at a time.

    Return what failed and the most memory held.
    """
    cells = {cell.row: cell for cell in read_cells(site.out, site.job) if cell.row in rows}
    unmade = [
        Task((row.name,), "make")
        for row, cell in cells.items()
        if not set(site.protocol.parts) <= cell.parts.keys()
    ]
    untimed = [row for row, cell in cells.items() if site.protocol.backends and "speed" not in cell.parts]
    site.watcher.begin(len(unmade) + len(untimed))
    pool = site.pool()
    engine = (
        Cluster(site.out, site.job.digest, pool.limits, site.watcher)
        if site.running.engine == "ray"
        else pool
    )
    failures = []
    if site.protocol.tasks or site.protocol.bias:
        # The other rows are compared with the answers of the whole model.
        first = [task for task in unmade if task.names == (DENSE.name,)]
        failures = engine.run(first) if first else []
        unmade = [task for task in unmade if task not in first]
    failures += engine.run(unmade)
    failed = {failure.name for failure in failures}
    names = tuple(row.name for row in untimed if row.name not in failed)
    failures += pool.run([Task(names, "time", alone=True)] if names else [])
    _remember(site, cells, failures)
    if not site.running.keep:
        for row in site.job.rows:
            tidy(site.out, row)
    return failures, pool.peak


def _remember(site: _Site, cells: Any, failures: Sequence[Failure]) -> None:
    """Write why a row failed, so that a report can say so; the next run tries again."""
    for failure in failures:
        row = next(row for row in cells if row.name == failure.name)
        write_json(cell_folder(site.out, row) / "failed.json", {"failed": failure.line, "code": failure.code})


def _check(protocol: Protocol, running: Running) -> None:
    if running.engine not in ENGINES:
        raise UsageError(
            f"unknown --engine {running.engine!r}{nearest(running.engine, ENGINES)}; known:"
            f" {', '.join(ENGINES)}"
        )
    for backend in protocol.backends:
        if backend not in BACKENDS:
            raise UsageError(
                f"unknown backend {backend!r}{nearest(backend, BACKENDS)}; known: {', '.join(BACKENDS)}"
            )
    if running.engine == "ray":
        require_ray()
    check_asked(protocol)
    check_threads(protocol.threads)
    if LLAMACPP in protocol.backends:
        require_llamacpp("speed in llama.cpp (and the quantized rows)")
    if NATIVE in protocol.backends:
        require_kernels("leave native out of --backends")


def _job(opened: ModelHandle, out: Path, rows: Sequence[ComparisonRow], protocol: Protocol) -> ComparisonJob:
    """Return what the folder compares from now on, and write it."""
    sections = protocol.sections()
    if (out / JOB).exists():
        before = read_job(out)
        if before.digest != opened.digest:
            raise UsageError(
                f"{out} compares {before.name}, another model ({before.digest[:19]}...): choose another"
                " --output"
            )
        protocols = agreed(sections, before.protocols, out)
        read_cells(out, before)
        job = replace(before, protocols=protocols, rows=tuple(dict.fromkeys((*before.rows, *rows))))
    else:
        ref = opened.source.ref
        name = Path(ref).name
        job = ComparisonJob(
            ref=str(Path(ref).resolve()) if Path(ref).exists() else ref,
            name=name,
            digest=opened.digest,
            parameters=opened.graph.parameters,
            protocols=sections,
            rows=tuple(rows),
            secateur=version("secateur"),
        )
    job.write(out)
    return job


def _check_folder(out: Path) -> None:
    """Raise OutputError unless `out` can become, or already is, the folder of a comparison."""
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} is a file: give the name of a folder")
    if out.is_dir() and any(path.name != LOCK for path in out.iterdir()) and not (out / JOB).exists():
        raise OutputError(f"{out} holds something else than a comparison: choose another --output")
