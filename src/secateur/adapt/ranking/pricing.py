"""Price each step of a ladder on its own, for policies that do not follow the order of the ladder."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from secateur.adapt.elastic.torch_model import build_body
from secateur.adapt.elastic.weights import prepare
from secateur.adapt.ranking.rank import PROBE_WINDOW
from secateur.adapt.ranking.windowed_forward import Passing
from secateur.calibrate.calibration import Calibration, calibration_tokens
from secateur.core.ladder_plan import check_ladder
from secateur.core.progress import Progress, Silent
from secateur.model.handle import ModelHandle
from secateur_runtime.errors import OutputError
from secateur_runtime.ladder import Ladder, step


def price(
    model: ModelHandle,
    ladder: Ladder,
    calibration: Calibration,
    *,
    probe: int = 8,
    scratch: Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Ladder:
    """Return the ladder with the price of each step in `costs[0]`.

    That is the loss of the whole model without this step alone, nats per token.
    calibration, probe: the text, as in `Rank`; use the text of the ranking, so that losses are comparable.
    scratch: folder for a copy of the weights. Raises LadderError for a ladder of another model, OutputError
    if the copy cannot be written.
    """
    check_ladder(ladder, model.graph, model.digest)
    told = progress or Silent()
    whole = ladder.kept(0)
    tokens = calibration_tokens(model, calibration, seed)
    window = min(PROBE_WINDOW, tokens.shape[1])
    alone = [{**whole, group: count} for rung in ladder.rungs for group, count in [step(rung.unit, whole)]]
    try:
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            passing = open_passing(
                model,
                ladder,
                Path(folder) / "weights.safetensors",
                tokens[:probe, :window],
                window - window // 4,
            )
            told.start("price", len(alone) + 1)
            losses = dict(_told(losses_of(passing, [whole, *alone]), told))
    except OSError as error:
        raise OutputError(f"cannot write a copy of the weights: {error.strerror}") from error
    # With another text than that of the ranking, only differences are meaningful.
    first = {rung.unit: losses[place] - losses[0] + ladder.loss for place, rung in enumerate(ladder.rungs, 1)}
    return replace(ladder, costs=(first, *ladder.costs[1:]))


def open_passing(
    model: ModelHandle,
    ladder: Ladder,
    path: Path,
    tokens: Tensor,
    scored: int,
    dtype: torch.dtype = torch.bfloat16,
) -> Passing:
    """Return a forward pass by sub-blocks, with units in the order of a ladder.

    path: file for a copy of the weights. tokens: `[windows, length]`. scored: tokens predicted in each
    window.
    """
    return Passing(build_body(model, prepare(model, ladder, path, dtype), path), model.graph, tokens, scored)


def losses_of(passing: Passing, models: Sequence[dict[str, int]]) -> Iterator[tuple[int, float]]:
    """Yield the index and the loss of each model, given by the retained units of each group.

    The order is such that models with equal first sub-blocks share the states after these.
    """
    names = passing.halves
    rows = sorted((tuple(kept[name] for name in names), number) for number, kept in enumerate(models))
    states = [passing.embedded()]
    before = tuple[int, ...]()
    for kept, number in rows:
        same = next(
            (place for place, (one, other) in enumerate(zip(kept, before, strict=False)) if one != other),
            len(before),
        )
        states = states[: same + 1]
        before = kept
        for name, count in zip(names[same:], kept[same:], strict=True):
            states.append(passing.through(name, count, states[-1]))
        yield number, passing.loss(states[-1])


def _told(losses: Iterable[tuple[int, float]], progress: Progress) -> Iterator[tuple[int, float]]:
    for number, loss in losses:
        progress.step(f"{loss:.4f}")
        yield number, loss
