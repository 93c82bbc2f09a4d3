"""Traces of a device, synthetic or recorded: requests that grow, and available memory that changes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TextIO

import numpy as np

from secateur_runtime.errors import OutputError, TraceError, UsageError, nearest

SCENARIOS = (
    (1, 4096),
    (2, 2048),
    (4, 2048),
    (4, 4096),
    (8, 1024),
    (8, 2048),
    (8, 4096),
    (16, 512),
    (16, 1024),
    (16, 2048),
)
"""Batch and sequence length of RAP's ten scenarios (arXiv:2505.17138)."""
MOMENTS = 8
"""Moments of a synthetic request: the prompt is seven eighths of its length, and seven pieces follow."""

Kind = Literal["steady", "drift", "bursts"]
KINDS: tuple[Kind, ...] = ("steady", "drift", "bursts")
_FORMAT = 1
_PULL = 0.15
_STIR = 0.03
_WIDEST = 0.10
_BURST = 0.04
_DEPTH = (0.10, 0.30)
_LASTS = (3, 12)
_LEAST = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """One moment of a trace.

    time: seconds since the start. request: number that counts up; moments of one request share a cache.
    batch: sequences of the request. tokens: positions that each holds now. remaining: positions still to
    come.
    available: bytes for the model.
    """

    time: float
    request: int
    batch: int
    tokens: int
    remaining: int
    available: float


Need = Callable[[int, int], float]
"""Returns the bytes of the whole model for a batch of sequences and the tokens of each."""


def synthetic(
    kind: Kind,
    need: Need,
    *,
    budget: float,
    requests: int,
    seed: int,
    per: Literal["request", "device"] = "request",
) -> list[Moment]:
    """Return a synthetic trace: requests of the ten scenarios under a budget that changes.

    The scenarios come in order, then shuffled again and again.
    kind: `steady` keeps the budget. `drift` moves it by up to 10 % of the need, about 3 % per moment, with a
    pull back to the middle. `bursts` is drift with random drops by 10 to 30 % of the need for 3 to 12
    moments.
    need: bytes of the whole model. budget: share of that need.
    per: the need is that of the current request (as in RAP), or of the largest scenario for a `device`.
    Raises UsageError for an unknown kind or a budget that is not positive.
    """
    if kind not in KINDS:
        raise UsageError(
            f"unknown trace {kind!r}{nearest(kind, KINDS)}; known: {', '.join(KINDS)}, or a .jsonl file"
        )
    if not 0 < budget <= 4 or requests < 1:
        raise UsageError(
            f"a budget of {budget:g} over {requests} requests is invalid: give a share such as 0.8 and at"
            " least one request"
        )
    random = np.random.default_rng(seed)
    shares = _moving(kind, budget, random)
    most = max(need(*scenario) for scenario in SCENARIOS)
    moments: list[Moment] = []
    for request in range(requests):
        if request % len(SCENARIOS) == 0:
            order = random.permutation(len(SCENARIOS)) if request else np.arange(len(SCENARIOS))
        batch, length = SCENARIOS[order[request % len(SCENARIOS)]]
        whole = need(batch, length) if per == "request" else most
        for piece in range(MOMENTS):
            remaining = (length // MOMENTS) * (MOMENTS - 1 - piece) // (MOMENTS - 1)
            time = float(len(moments))
            share = next(shares)
            moments.append(
                Moment(
                    time=time,
                    request=request,
                    batch=batch,
                    tokens=length - remaining,
                    remaining=remaining,
                    available=share * whole,
                )
            )
    return moments


def _moving(kind: Kind, budget: float, random: np.random.Generator) -> Iterator[float]:
    """Yield the share of memory from moment to moment."""
    moved = 0.0
    left = 0
    depth = 0.0
    while True:
        if kind != "steady":
            moved = float(np.clip(moved * (1 - _PULL) + random.normal(0, _STIR), -_WIDEST, _WIDEST))
        if kind == "bursts" and not left and random.random() < _BURST:
            left = int(random.integers(_LASTS[0], _LASTS[1] + 1))
            depth = float(random.uniform(*_DEPTH))
        yield max(_LEAST, budget + moved - (depth if left else 0.0))
        left = max(0, left - 1)


class Recorder:
    """Writes moments as JSON lines, each at once, so that a killed process leaves a usable trace."""

    def __init__(self, path: Path, *, about: str, overwrite: bool = False) -> None:
        if path.exists() and not overwrite:
            raise OutputError(f"{path} exists: choose another file, or pass --overwrite")
        try:
            self._file: TextIO = path.open("w", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
        self._line({"trace": _FORMAT, "about": about})

    def __call__(self, moment: Moment) -> None:
        """Write one moment."""
        self._line(asdict(moment))

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def _line(self, body: dict[str, Any]) -> None:
        self._file.write(json.dumps(body) + "\n")
        self._file.flush()


def write_trace(path: Path, moments: Sequence[Moment], *, about: str, overwrite: bool = False) -> None:
    """Write a trace for `read_trace`; raises OutputError if it cannot be written."""
    with Recorder(path, about=about, overwrite=overwrite) as record:
        for moment in moments:
            record(moment)


def read_trace(path: Path) -> list[Moment]:
    """Return a recorded trace; raises TraceError with the line number for an invalid file.

    A last line cut short by a kill is ignored.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TraceError(
            f"cannot read {path}: {getattr(error, 'strerror', None) or 'it is not UTF-8 text'}"
        ) from None
    lines = text.split("\n")[:-1]
    head = _object(lines[0]) if lines else None
    if head is None or head.get("trace") != _FORMAT:
        raise TraceError(f"{path} is no trace: its first line is not {{'trace': {_FORMAT}, ...}}")
    moments = [_moment(path, number, line) for number, line in enumerate(lines[1:], 2)]
    for number, (before, after) in enumerate(pairwise(moments), 3):
        if after.time < before.time or after.request < before.request:
            raise TraceError(f"{path}, line {number}: time or request goes back")
    if not moments:
        raise TraceError(f"{path} holds no moment")
    return moments


def _object(line: str) -> dict[str, Any] | None:
    try:
        body = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def _moment(path: Path, number: int, line: str) -> Moment:
    body = _object(line)
    known = {each.name: each.type for each in fields(Moment)}
    if body is None or body.keys() != known.keys():
        raise TraceError(f"{path}, line {number}: no moment of exactly {', '.join(known)}")
    for name, value in body.items():
        whole = known[name] == "int"
        good = (
            isinstance(value, int if whole else int | float)
            and not isinstance(value, bool)
            and math.isfinite(value)
        )
        if not good or value < (1 if name in ("batch", "tokens") else 0):
            raise TraceError(f"{path}, line {number}: {name} is {value!r}")
    whole = {name: int(body[name]) for name in ("request", "batch", "tokens", "remaining")}
    return Moment(time=float(body["time"]), available=float(body["available"]), **whole)
