"""What a comparison comes to, row by row, in the terms people choose by.

size, speed, accuracy kept, hardware, best for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from secateur.present.comparison_folder import Cell, ComparisonRow

_RUNTIMES = ("llamacpp", "torch", "native")
"""Where the first speed that a row has is the one that counts; the native backend's only where nothing else
was measured.
"""
_HARDWARE = {
    "dense": "any that has the memory",
    "quantized": "CPUs and GPUs with integer kernels, such as llama.cpp's",
    "magnitude": "where something skips zeros; stock kernels do not",
    "unstructured": "where something skips zeros; stock kernels do not",
    "structured": "any CPU, GPU or NPU: the matrices are smaller",
}
_SKIPS = "CPUs, where secateur's native backend skips zeros; stock kernels do not"
_TWO_OF_FOUR = "NVIDIA GPUs with sparse tensor cores (since Ampere)"
_DEPTH = "any CPU, GPU or NPU: there are fewer matrices"
_GOOD_FOR = {
    "dense": "the reference",
    "quantized": "the smallest file for little loss",
    "magnitude": "a quick try: needs no data",
    "unstructured": "many zeros for little loss, if the runtime skips them",
    "structured": "speed and memory everywhere",
}
_GOOD_DEPTH = "latency: fewer blocks for a token to wait for"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One row in figures; None where nothing was measured.

    size_reduction: removed share of the whole model's bytes. speed_gain: decode speed by the whole
    model's, in `runtime`.
    accuracy_kept: share of the whole model's mean task accuracy, or of its next-token accuracy where no tasks
    were measured.
    task_accuracy: mean over the tasks of comprehension. stereotyped: share of CrowS-Pairs whose stereotyping
    sentence is the likelier; 0.5 is neutral.
    native_...: the same in the native backend, of bytes as it holds them; gains by the whole model in
    bfloat16 there.
    bandwidth: share of what memory gives at which it reads weights.
    best: of which measured column it is the best of all pruned rows at its target.
    """

    row: ComparisonRow
    parameters: float | None = None
    nonzero: float | None = None
    size: float | None = None
    size_reduction: float | None = None
    runtime: str = ""
    speed: float | None = None
    speed_gain: float | None = None
    prompt_gain: float | None = None
    memory: float | None = None
    perplexity: float | None = None
    accuracy_kept: float | None = None
    task_accuracy: float | None = None
    stereotyped: float | None = None
    prune_seconds: float | None = None
    prune_cpu: float | None = None
    native_size: float | None = None
    native_reduction: float | None = None
    native_speed: float | None = None
    native_gain: float | None = None
    bandwidth: float | None = None
    hardware: str = ""
    good_for: str = ""
    best: tuple[str, ...] = ()
    failed: str = ""
    notes: tuple[str, ...] = ()

    @property
    def held(self) -> float | None:
        """Bytes of weights where each row runs in as few as was measured.

        In the native backend, or in llama.cpp's file of a quantized one.
        """
        return self.size if self.row.kind == "quantized" else self.native_size


BESTS: tuple[tuple[str, str, Callable[[float], float]], ...] = (
    ("perplexity", "lowest perplexity", lambda value: value),
    ("accuracy_kept", "most accuracy kept", lambda value: -value),
    ("speed_gain", "fastest", lambda value: -value),
    ("size", "smallest", lambda value: value),
    ("prune_cpu", "cheapest to make", lambda value: value),
)


def lines_of(cells: Sequence[Cell]) -> list[Line]:
    """Return a line for each row of a comparison, in the same order."""
    whole = next((cell for cell in cells if cell.row.kind == "dense"), None)
    found = [_line(cell, whole) for cell in cells]
    return [replace(line, best=tuple(_best(line, found))) for line in found]


def task_scores(cell: Cell) -> dict[str, float]:
    """Return the accuracy of each task of comprehension that was measured, by name.

    Word prediction is another matter.
    """
    part = cell.parts.get("tasks")
    named = {} if part is None else {record.name: record.value for record in part.records}
    return {
        name: value
        for name, value in named.items()
        if name.startswith("comprehension/") and name.endswith("/acc")
    }


def _mean(scores: Mapping[str, float]) -> float | None:
    return sum(scores.values()) / len(scores) if scores else None


def _line(cell: Cell, whole: Cell | None) -> Line:
    runtime = _runtime(cell, whole)
    size = cell.value("file_bytes") if cell.row.kind == "quantized" else cell.value("weight_bytes")
    dense = cell.row.kind == "dense"
    held = cell.value("native_bytes")
    theirs = whole.value("native_bytes") if whole else None
    return Line(
        row=cell.row,
        parameters=cell.value("parameters"),
        nonzero=cell.value("nonzero_parameters"),
        size=held if cell.row.native else size,
        size_reduction=1 - held / theirs if cell.row.native and held and theirs else _reduction(cell, whole),
        runtime=runtime,
        speed=cell.value(f"{runtime}_decode"),
        speed_gain=1.0 if dense and runtime else cell.value(f"{runtime}_decode_ratio"),
        prompt_gain=1.0 if dense and runtime else cell.value(f"{runtime}_prompt_ratio"),
        memory=cell.value(f"{runtime}_peak_memory"),
        perplexity=cell.value("perplexity"),
        accuracy_kept=_kept(cell, whole),
        task_accuracy=_mean(task_scores(cell)),
        stereotyped=cell.value("crows_pairs"),
        prune_seconds=cell.value("prune_seconds"),
        prune_cpu=cell.value("prune_cpu_seconds"),
        native_size=held,
        native_reduction=1 - held / theirs if held and theirs else None,
        native_speed=cell.value("native_decode"),
        native_gain=1.0 if dense and held else cell.value("native_decode_ratio"),
        bandwidth=cell.value("native_bandwidth"),
        hardware=_SKIPS if cell.row.zeroed and held and cell.row.target != "2:4" else _hardware(cell.row),
        good_for=_GOOD_DEPTH if cell.row.is_depth else _GOOD_FOR[cell.row.kind],
        failed=cell.failed,
        notes=cell.notes,
    )


def _runtime(cell: Cell, whole: Cell | None) -> str:
    """Return where the speed that counts was measured.

    Gains in the native backend are by another whole model, and stand in columns of their own.
    """
    measured = [name for name in _RUNTIMES if cell.value(f"{name}_decode") is not None]
    others = whole is not None and any(whole.value(f"{name}_decode") is not None for name in _RUNTIMES[:-1])
    return next((name for name in measured if name != _RUNTIMES[-1] or not others), "")


def _hardware(row: ComparisonRow) -> str:
    if row.target == "2:4" and row.kind in ("magnitude", "unstructured"):
        return _TWO_OF_FOUR
    return _DEPTH if row.is_depth else _HARDWARE[row.kind]


def _reduction(cell: Cell, whole: Cell | None) -> float | None:
    """Return the share of bytes that went.

    Of the folder's for what was pruned, of the 16-bit file's for what was quantized.
    """
    name = "file_bytes" if cell.row.kind == "quantized" else "weight_bytes"
    ours = cell.value(name)
    theirs = whole.value(name) if whole else None
    theirs = theirs if theirs is not None or whole is None else whole.value("weight_bytes")
    return None if ours is None or not theirs else 1 - ours / theirs


def _kept(cell: Cell, whole: Cell | None) -> float | None:
    if whole is None:
        return None
    ours = task_scores(cell)
    theirs = task_scores(whole)
    both = sorted(ours.keys() & theirs.keys())
    if theirs and cell.row.native:
        return None
    if both and sum(theirs[name] for name in both):
        return sum(ours[name] for name in both) / sum(theirs[name] for name in both)
    kept = cell.value("next_token_accuracy")
    all_of_it = whole.value("next_token_accuracy")
    return kept / all_of_it if kept is not None and all_of_it else None


def _best(line: Line, lines: Sequence[Line]) -> list[str]:
    """Return in what a pruned row is the best of those at its target."""
    rivals = [other for other in lines if other.row.target == line.row.target and line.row.target]
    found = []
    for column, words, key in BESTS:
        own = getattr(line, column)
        others = [getattr(other, column) for other in rivals if getattr(other, column) is not None]
        if own is not None and len(set(others)) > 1 and key(own) == min(map(key, others)):
            found.append(words)
    return found
