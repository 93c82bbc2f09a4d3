"""Rank the parts of a model into a ladder.

A criterion orders the units within each group, and a search orders the groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from secateur.adapt.elastic.torch_model import build_body
from secateur.adapt.elastic.weights import elastic_groups, prepare
from secateur.adapt.memory_model import MemoryModel
from secateur.adapt.ranking.greedy_search import Cost, Search, Steps
from secateur.adapt.ranking.resume import unfinished
from secateur.adapt.ranking.windowed_forward import Passing
from secateur.allocate.protect import protected_groups
from secateur.calibrate.calibration import Calibration, calibration_tokens, text_of
from secateur.core.context import RunContext
from secateur.core.progress import Progress, Silent
from secateur.model.handle import ModelHandle
from secateur.pipeline.prune.width.decide import Width, rank_units
from secateur_runtime.errors import UsageError
from secateur_runtime.files import refuse_existing
from secateur_runtime.ladder import Ladder, Rung

PROBE_WINDOW = 128
"""Tokens of a window on which losses are measured; the first quarter is context and not scored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rank:
    """How a model is ranked.

    calibration: text that orders the units. probe: losses are measured on the start of this many of its
    windows.
    criterion: orders neurons and key-value groups, as for `scorer_for`.
    widths: steps to remove an FFN; 1 removes whole sub-blocks only. groups: whether key-value groups are
    removed one by one.
    floor: share of the bytes of the whole model, weights and `context` tokens of cache, at which the ladder
    ends.
    context: tokens in all caches together when parts are compared by the bytes that they free.
    protect: parts that stay whole, as for `protected_groups`.
    dtype, kv: types of weights, and of keys and values, in the elastic model.
    """

    calibration: Calibration = field(default_factory=lambda: Calibration(samples=16, window=512))
    probe: int = 8
    criterion: str = "contribution"
    widths: int = 2
    groups: bool = False
    floor: float = 0.4
    context: int = 4096
    protect: Sequence[str] = ()
    dtype: torch.dtype = torch.bfloat16
    kv: torch.dtype = torch.float32

    def check(self) -> None:
        """Raise UsageError for values that no model allows."""
        if not 0 <= self.floor < 1:
            raise UsageError(
                f"--floor {self.floor:g} is outside [0, 1): it is the share of the memory that the last level"
                " still takes"
            )
        if self.probe < 1 or self.widths < 1 or self.context < 0:
            raise UsageError("--probe and --widths are at least 1, --context at least 0")


def rank(
    model: ModelHandle,
    how: Rank | None = None,
    *,
    out: Path | None = None,
    overwrite: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[Ladder, Cost]:
    """Return the ladder of a model, and the effort of the search.

    out: file to save it as; progress is kept in `OUT.partial`, from which a killed run continues.
    overwrite: whether an existing file may be replaced.
    Raises UsageError for invalid options, TextError if the text is too short, OutputError if nothing can be
    written.
    """
    how = how or Rank()
    context = RunContext(seed=seed, progress=progress or Silent())
    how.check()
    if out is not None:
        refuse_existing(out, overwrite=overwrite)
    tokens = calibration_tokens(model, how.calibration, seed)
    made_by = _made_by(how, tokens, seed)
    rungs = list[Rung]()
    with unfinished(out, {"model": model.digest, **made_by}, overwrite=overwrite) as kept:
        order = kept.order(lambda: _order(model, how, tokens, context))
        nothing = Rung(unit="", loss=0.0, weight_bytes=0, kv_values=0, flops=0)
        ladder = Ladder(model=model.digest, order=order, whole=nothing, rungs=(), made_by=made_by)
        search = _search(model, ladder, how, tokens, kept.weights)
        whole = search.rung("")
        rungs += kept.resume(search)
        for rung in search.rungs(how.floor, context.progress):
            rungs.append(rung)
            kept.keep(search, rungs)
        ladder = replace(ladder, whole=whole, rungs=tuple(rungs), costs=tuple(search.measured))
        if out is not None:
            ladder.save(out, overwrite=overwrite)
    return ladder, search.cost


def _order(model: ModelHandle, how: Rank, tokens: Tensor, context: RunContext) -> dict[str, tuple[int, ...]]:
    """Return the units of every group, those retained longest first."""
    width = Width(units=("kv", "ffn"), ratio=0.5, criterion=how.criterion)
    ranked = rank_units(model, elastic_groups(model.graph), width, tokens, context)
    return {
        name: tuple(unit for steps in reversed(one.steps) for unit in reversed(steps))
        for name, one in ranked.items()
    }


def _search(model: ModelHandle, ladder: Ladder, how: Rank, tokens: Tensor, path: Path) -> Search:
    memory = MemoryModel(model.graph, how.dtype, how.kv)
    body = build_body(model, prepare(model, ladder, path, how.dtype), path)
    window = min(PROBE_WINDOW, tokens.shape[1])
    passing = Passing(body, model.graph, tokens[: how.probe, :window], window - window // 4)
    return Search(
        passing,
        memory,
        Steps(
            widths=how.widths,
            groups=how.groups,
            protect=protected_groups(model.graph, how.protect),
            context=how.context,
        ),
    )


def _made_by(how: Rank, tokens: Tensor, seed: int) -> dict[str, str]:
    said = {
        "criterion": how.criterion,
        "probe": str(how.probe),
        "widths": str(how.widths),
        "groups": "yes" if how.groups else "no",
        "floor": f"{how.floor:g}",
        "context": str(how.context),
        "protect": ",".join(how.protect),
        "dtype": str(how.dtype).removeprefix("torch."),
        "kv": str(how.kv).removeprefix("torch."),
        "seed": str(seed),
        "secateur": version("secateur"),
    }
    return {key: value for key, value in said.items() if value} | text_of(how.calibration, tokens).facts
