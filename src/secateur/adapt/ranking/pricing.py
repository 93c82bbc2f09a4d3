"""What each step of a ladder costs on its own: what policies go by that leave the ladder's order."""

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
    """Return the ladder with the loss of the whole model without each step, taken from the whole model at once, in `costs[0]`.

    calibration, probe: the text, as in `Rank`; give what the ladder was ranked on, so that its losses compare. scratch: folder for a
    copy of the weights. Raises LadderError for a ladder of another model, OutputError if the copy finds no room.
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
    # Of another text than the ranking's, only the difference means anything.
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
    """Return a model that text passes half by half, its units in the order of a ladder.

    `path` takes a copy of its weights.
    """
    return Passing(build_body(model, prepare(model, ladder, path, dtype), path), model.graph, tokens, scored)


def losses_of(passing: Passing, models: Sequence[dict[str, int]]) -> Iterator[tuple[int, float]]:
    """Yield the number and the loss of each model, given by how many units of each group it keeps.

    They come in an order in which the states of what two models have in common from the start are computed
    once.
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
