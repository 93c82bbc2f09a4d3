"""The kinds of pruning as rows, with what was measured of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from secateur.present.columns import NOTHING
from secateur.present.summary_rows import Line

_HEADER = (
    "kind of pruning",
    "size reduction",
    "speed gain",
    "accuracy kept",
    "hardware suitability",
    "best for",
)
NATIVE = "in our kernels"
_KINDS = ("magnitude", "unstructured", "structured, width", "structured, depth", "structured, both")
ADAPTIVE = "runtime-adaptive"
NOT_YET = "not measured here: `secateur adapt` is for memory that moves while a model runs"


def header(lines: Sequence[Line]) -> list[str]:
    """Return the headings of the columns of `by_kind`.

    The column of the native backend is there only where it was measured.
    """
    return [*_HEADER[:3], *([NATIVE] if _natively(lines) else []), *_HEADER[3:]]


def by_kind(lines: Sequence[Line]) -> list[list[str]]:
    """Return a row for each kind of pruning: the range of each figure over the lines of that kind.

    The columns are those of `header`.
    """
    rows = []
    wide = _natively(lines)
    for kind in _KINDS:
        own = [line for line in lines if kind_of(line) == kind and not line.failed]
        if own:
            figures = [
                _range(own, "size_reduction", lambda value: f"{100 * value:.0f} %"),
                _range(own, "speed_gain", lambda value: f"x {value:.2f}"),
                *([_in_kernels(own)] if wide else []),
                _range(own, "accuracy_kept", lambda value: f"{100 * value:.0f} %"),
            ]
            rows.append(
                [kind, *figures, " or ".join(dict.fromkeys(line.hardware for line in own)), own[0].good_for]
            )
    return [*rows, [ADAPTIVE, *[NOTHING] * (5 if wide else 4), NOT_YET]] if rows else []


def _natively(lines: Sequence[Line]) -> bool:
    return any(line.row.target and line.native_gain is not None for line in lines)


def _in_kernels(own: Sequence[Line]) -> str:
    gain = _range(own, "native_gain", lambda value: f"x {value:.2f}")
    return (
        gain
        if gain == NOTHING
        else f"{_range(own, 'native_reduction', lambda value: f'{100 * value:.0f} %')} smaller, {gain}"
    )


def kind_of(line: Line) -> str:
    """Return which of the rows here one of the comparison belongs to.

    Structured pruning takes width, depth, or, searched by `auto`, both.
    """
    if line.row.kind != "structured":
        return line.row.kind
    name = line.row.method.partition(":")[0]
    return f"structured, {name if name in ('width', 'depth') else 'both'}"


def _range(lines: Sequence[Line], field: str, write: Callable[[float], str]) -> str:
    values = sorted(value for line in lines if (value := getattr(line, field)) is not None)
    if not values:
        return NOTHING
    low = write(values[0])
    high = write(values[-1])
    return low if low == high else f"{low} to {high}"
