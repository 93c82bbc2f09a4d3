"""One row of a comparison, part by part: prune, write the file that is shipped, measure."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from secateur.core.context import Settings
from secateur.core.folder_files import PLAN
from secateur.core.footprint import footprint
from secateur.core.plan import Plan
from secateur.core.progress import Progress
from secateur.measure.perplexity import described
from secateur.model.handle import open_model
from secateur.model.written.pruned_config import is_stock
from secateur.pipeline.bench.bench import Benched, bench, bench_each, bench_files, with_ratio
from secateur.pipeline.compare.protocol import protocol_of
from secateur.pipeline.compare.removed_share import removed
from secateur.pipeline.compare.row import FILE, LLAMACPP, MODEL, NATIVE, PLAIN, RowSpec
from secateur.pipeline.compare.row_tasks import audit, score_tasks
from secateur.pipeline.compare.rows import RowMethod, Size
from secateur.pipeline.evaluate.evaluate import evaluate
from secateur.pipeline.evaluate.native_model import NativeOptions
from secateur.pipeline.prune.apply import apply
from secateur.pipeline.prune.plan import plan
from secateur.present.comparison_folder import ComparisonRow, cell_folder, read_cell, read_job, write_json
from secateur.runtime.process import forget_peak, process_memory
from secateur.tensors.storage_dtype import storage_type
from secateur_runtime.errors import UncheckedError, UnsupportedModelError, UsageError
from secateur_runtime.record import Record

PLANNED = "planned.json"
NATIVE_PLAIN = "bf16"
NATIVE_ZEROED = "sparse-bf16"
"""Types of rows in the native backend; rows with single weights removed run without the zeros where that is
faster.
"""


def make(folder: Path, name: str, progress: Progress) -> None:
    """Do every unfinished part of the row called `name` but its speed."""
    _each(
        folder,
        name,
        progress,
        {"pruned": _pruned, "file": _file, "quality": _quality, "tasks": score_tasks, "bias": audit},
    )


def time_row(folder: Path, name: str, progress: Progress) -> None:
    """Measure the speed of the row called `name`, in turns with the whole model.

    Nothing else should run meanwhile.
    """
    _each(folder, name, progress, {"speed": _speed})


def tidy(folder: Path, row: ComparisonRow) -> None:
    """Delete the weights of a row; its plan makes them again, byte for byte."""
    shutil.rmtree(cell_folder(folder, row) / MODEL, ignore_errors=True)
    (cell_folder(folder, row) / FILE).unlink(missing_ok=True)


def _each(folder: Path, name: str, progress: Progress, steps: dict[str, Callable[[RowSpec], None]]) -> None:
    job = read_job(folder)
    row = next((row for row in job.rows if row.name == name), None)
    if row is None:
        raise UsageError(f"{folder} compares no {name!r}")
    finished = read_cell(folder, job, row).parts
    wanted = (*protocol_of(job).parts, "speed")
    for part, step in steps.items():
        if part in wanted and part not in finished:
            step(RowSpec(folder, job, row, progress))


def _pruned(work: RowSpec) -> None:
    if work.row.kind in ("dense", "quantized"):
        _whole(work)
        return
    made, spent = _decided(work)
    settings = Settings(overwrite=True)
    with _clock() as taken:
        done = apply(made, work.job.ref, work.place / MODEL, settings=settings, progress=work.progress)
    spent = {key: spent[key] + taken[key] if key != "peak" else max(spent[key], taken[key]) for key in spent}
    opened = open_model(work.job.ref)
    width = storage_type(settings.dtype, opened.graph.tensors).itemsize
    zeros = round(done.sparsity * sum(opened.graph.tensors[name].numel for name in made.sparsity))
    protocol = _words(work, done.resumed_blocks)
    work.write(
        "pruned",
        work.record("parameters", done.parameters, "count", "stored weights of the written folder"),
        work.record(
            "nonzero_parameters",
            done.parameters - zeros,
            "count",
            "stored weights of the written folder that are not zero",
        ),
        work.record(
            "weight_bytes", done.parameters * width, "bytes", f"stored weights at {width} bytes each"
        ),
        work.record("prune_seconds", spent["seconds"], "s", protocol),
        work.record("prune_cpu_seconds", spent["cpu"], "s", f"{protocol}, processor time"),
        work.record(
            "prune_peak_memory", spent["peak"], "bytes", f"{protocol}, resident memory of the process"
        ),
        work.record(
            "stock",
            float(is_stock(opened, made)),
            "yes or no",
            "whether stock transformers has a class for these widths",
        ),
        removed=removed(opened.graph, made),
        weights=open_model(str(work.place / MODEL)).digest,
    )
    (work.place / PLANNED).unlink(missing_ok=True)


def _whole(work: RowSpec) -> None:
    opened = open_model(work.job.ref)
    width = storage_type("auto", opened.graph.tensors).itemsize
    size = footprint(opened.graph, {}, (), width).weight_bytes
    records = [
        work.record(name, opened.graph.parameters, "count", "stored weights")
        for name in ("parameters", "nonzero_parameters")
    ]
    if work.row.kind == "dense":
        records.append(work.record("weight_bytes", size, "bytes", f"stored weights at {width} bytes each"))
    work.write("pruned", *records)


def _decided(work: RowSpec) -> tuple[Plan, dict[str, float]]:
    """Return the plan and its costs; a plan that a killed run decided is taken as it is."""
    spent = work.place / PLANNED
    if spent.is_file() and (work.place / PLAN).is_file():
        return work.plan(), dict(json.loads(spent.read_text(encoding="utf-8")))
    goal = RowMethod.parse(work.row.method).goal(Size.parse(work.row.target), open_model(work.job.ref).graph)
    with _clock() as taken:
        made = plan(
            work.job.ref,
            goal,
            calibration=work.protocol.calibration,
            seed=work.protocol.seed,
            progress=work.progress,
        )
    work.place.mkdir(parents=True, exist_ok=True)
    (work.place / PLAN).write_text(made.to_json(), encoding="utf-8")
    write_json(spent, taken)
    return made, taken


def _file(work: RowSpec) -> None:
    """Write the GGUF file; that llama.cpp cannot hold a model is a fact about the model, not a failure."""
    checked = LLAMACPP in work.protocol.backends
    if work.row.native or (not checked and work.row.kind != "quantized"):
        work.write("file")
        return
    try:
        path = work.file()
    except (UnsupportedModelError, UsageError) as error:
        work.write("file", notes=(f"not in llama.cpp: {error}",))
        return
    kind = work.row.method if work.row.kind == "quantized" else PLAIN
    work.write(
        "file",
        work.record(
            "file_bytes",
            path.stat().st_size,
            "bytes",
            f"GGUF file, type {kind}, {'' if checked else 'not '}checked in llama.cpp",
        ),
    )


def _quality(work: RowSpec) -> None:
    protocol = work.protocol
    section = work.job.protocols["quality"]
    native = NativeOptions(kind=work.row.native) if work.row.native else None
    found = evaluate(
        work.model,
        text=protocol.text,
        window=protocol.window,
        count=protocol.count,
        compute=protocol.compute,
        native=native,
        progress=work.progress,
    )
    words = described(
        section["origin"],
        section["digest"],
        protocol.count,
        protocol.window,
        work.row.method if native else protocol.compute,
    )
    work.write(
        "quality",
        *(
            replace(record, seed=protocol.seed)
            for record in found.records(words, work.job.digest, work.plan_digest)
        ),
    )


def _speed(work: RowSpec) -> None:
    records = list[Record]()
    notes = list[str]()
    for backend in work.protocol.backends:
        try:
            records += _timed(work, backend)
        except UnsupportedModelError as error:
            notes.append(f"not in {backend}: {error}")
    work.write("speed", *records, notes=tuple(notes))


def _timed(work: RowSpec, backend: str) -> Iterator[Record]:
    """Yield the figures of one backend, and their ratios to the whole model's.

    Nothing where the row does not run in that backend.
    """
    settings = replace(work.protocol.speed, backend=backend)
    dense = work.row.kind == "dense"
    if backend == NATIVE:
        if work.row.kind == "quantized" and not work.row.native:
            return
        plain = replace(settings, kind=NATIVE_PLAIN)
        settings = replace(
            settings, kind=work.row.native or (NATIVE_ZEROED if work.row.zeroed else NATIVE_PLAIN)
        )
        entries = [(work.model, settings), *([] if dense else [(work.job.ref, plain)])]
        found = with_ratio(bench_each(entries, work.progress))[0]
        yield from _told(work, found, settings.kind)
    elif backend == "torch":
        if work.row.kind == "quantized":
            return
        found = bench(work.model, None if dense else work.job.ref, settings, work.progress)[0]
    else:
        if "file_bytes" not in read_cell(work.folder, work.job, work.row).records:
            return
        files = [work.file()] if dense else [work.file(), work.whole.file()]
        found = bench_files(work.job.ref, files, settings, work.progress)[0]
    for one in found.records(settings):
        if one.name != "file":
            yield work.record(f"{backend}_{one.name}", one.value, one.unit, one.protocol)
    for name, ratio in (found.ratio or {}).items():
        words = (
            f"{backend}, the whole model's beside it in the same run, median of {settings.repeat} ratios"
            f" ({ratio.low:.3g} to {ratio.high:.3g})"
        )
        yield work.record(f"{backend}_{name}_ratio", ratio.median, "ratio", words)


def _told(work: RowSpec, found: Benched, kind: str) -> Iterator[Record]:
    """Yield the bytes that the native backend holds, and the share of the memory bandwidth that it uses."""
    if found.native is None or found.stream is None:
        raise UncheckedError(
            "the native backend ran in torch: the kernels that were there when the comparison began are gone"
        )
    sparse = sum(count for _, _, held, count in found.native.kinds if held.startswith("sparse"))
    words = (
        f"matrices as the native backend holds them, {kind}, {sparse} of"
        f" {sum(count for *_, count in found.native.kinds)} without their zeros"
    )
    yield work.record("native_bytes", found.native.weights, "bytes", words)
    share = (
        "bytes of matrices that a token reads, by what memory gives in the same turns"
        f" ({found.stream.low:.3g} to {found.stream.high:.3g})"
    )
    yield work.record("native_bandwidth", found.stream.median, "share", share)


def _words(work: RowSpec, resumed: int) -> str:
    calibration = work.protocol.calibration
    words = (
        f"plan, prune, write, reload and compare; calibration {Path(calibration.text).name},"
        f" {calibration.samples} windows of {calibration.window} tokens"
    )
    return words + (f"; resumed after a kill, of which {resumed} blocks do not count" if resumed else "")


@contextmanager
def _clock() -> Iterator[dict[str, float]]:
    """Yield a dict that is filled on exit: seconds, processor seconds, and the peak memory in bytes."""
    found: dict[str, float] = {}
    forget_peak()
    started = time.perf_counter()
    used = sum(os.times()[:4])
    yield found
    found |= {
        "seconds": time.perf_counter() - started,
        "cpu": sum(os.times()[:4]) - used,
        "peak": float(process_memory().peak),
    }
