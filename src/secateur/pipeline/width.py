"""Decide which units every block keeps."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version

import torch

from secateur.allocate.units import Curve
from secateur.allocate.units.knapsack import cheapest_cuts
from secateur.allocate.units.uniform import uniform_cuts
from secateur.calibrate.collect import HiddenStates, collect
from secateur.core.errors import UsageError, nearest
from secateur.core.graph import Block, Group, Kind
from secateur.core.plan import Plan
from secateur.core.progress import Progress
from secateur.core.stream import LiveBlock
from secateur.model.arithmetic import arithmetic
from secateur.model.opened import Opened
from secateur.pipeline.calibration import Calibration, calibration_tokens, provenance
from secateur.transform.eliminate import Elimination, eliminate
from secateur.transform.repair import REPAIRS

KINDS: tuple[Kind, ...] = ("ffn", "kv")


@dataclass(frozen=True, slots=True, kw_only=True)
class Width:
    """What to narrow.

    units: kinds of groups, of `KINDS`.
    ratio: share of the parameters of those groups that goes.
    allocation: `uniform` (the same width everywhere, a stock checkpoint) or `knapsack` (least summed error).
    align: FFN widths that stay are multiples of it.
    spare: blocks left whole at either end.
    repair: `lsq` makes the surviving inputs of each half's last linear answer for those that left; `none` does not.
    """

    units: tuple[str, ...] = ("ffn",)
    ratio: float = 0.2
    allocation: str = "uniform"
    align: int = 32
    spare: tuple[int, int] = (0, 0)
    repair: str = "lsq"


def decide_width(model: Opened, width: Width, calibration: Calibration, seed: int, progress: Progress) -> Plan:
    """Return the plan that keeps, in every block, the units whose loss the others can answer for least.

    Raises UsageError for options that cannot work, TextError if the calibration text is too short.
    """
    _check(width)
    tokens = calibration_tokens(model, calibration, seed)
    found, curves = _eliminations(model, width, HiddenStates(model.stream(), tokens), progress)
    if width.allocation == "uniform":
        cuts = {name: uniform_cuts({name: curve}, width.ratio, _align(name, width))[name] for name, curve in curves.items()}
    else:
        budget = round(width.ratio * sum(curve.size * curve.price for curve in curves.values()))
        cuts = cheapest_cuts(curves, budget, width.align)
    keep = {name: tuple(sorted(found[name].order[count:])) for name, count in cuts.items() if count}
    made_by = {
        "target": f"ratio={width.ratio:g}",
        "units": ",".join(width.units),
        "allocation": width.allocation,
        "criterion": "",
        "repair": REPAIRS[width.repair].name,
    }
    made_by |= {"scope": "row", "seed": str(seed), "secateur": version("secateur"), **provenance(calibration, tokens)}
    return Plan(model=model.digest, keep=keep, made_by=made_by)


def _check(width: Width) -> None:
    for kind in width.units:
        if kind not in KINDS:
            raise UsageError(f"unknown units {kind!r}{nearest(kind, KINDS)}; known: {', '.join(KINDS)}")
    if not 0 < width.ratio < 1:
        raise UsageError(f"--ratio {width.ratio} is outside (0, 1)")
    if width.allocation not in ("uniform", "knapsack"):
        raise UsageError(f"unknown --allocation {width.allocation!r} for width{nearest(width.allocation, ('uniform', 'knapsack'))}: uniform or knapsack")


def _align(name: str, width: Width) -> int:
    return width.align if name.endswith(".ffn") else 1


def _eliminations(model: Opened, width: Width, hidden: HiddenStates, progress: Progress) -> tuple[dict[str, Elimination], dict[str, Curve]]:
    """Eliminate the units of every group of the dense model; errors are relative to the median squared state."""
    stream, last = model.stream(), len(model.graph.blocks) - width.spare[1]
    found: dict[str, Elimination] = {}
    curves: dict[str, Curve] = {}
    progress.start("rank units", len(stream))
    with arithmetic("bfloat16"):
        for block in model.graph.blocks:
            with stream.open(block.index) as live:
                for group in block.groups if width.spare[0] <= block.index < last else ():
                    if group.kind in width.units:
                        found[group.name] = _eliminate(live, block, group, hidden)
                hidden.advance(live)
            norm = float(torch.stack([batch.square().sum(-1).median() for batch in hidden.batches()]).median())
            for group in block.groups:
                if group.name in found:
                    curves[group.name] = Curve(tuple(error / norm for error in found[group.name].errors), _price(model, group))
            progress.step(f"block {block.index}")
    return found, curves


def _eliminate(live: LiveBlock, block: Block, group: Group, hidden: HiddenStates) -> Elimination:
    output = group.slices[-1]
    (linear,) = (linear for linear in block.linears if linear.tensor == output.tensor)
    stats = collect(live, [linear], hidden, {"gram"})[linear.tensor]
    with arithmetic("float32"):
        return eliminate(live.weight(linear.tensor), stats, output.block)


def _price(model: Opened, group: Group) -> int:
    """Return the parameters that one unit of a group holds."""
    total = 0
    for part in group.slices:
        shape = model.graph.tensors[part.tensor].shape
        total += part.block * (model.graph.tensors[part.tensor].numel // shape[part.dim])
    return total
