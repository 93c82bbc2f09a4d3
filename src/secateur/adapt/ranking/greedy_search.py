"""Find in which order parts of a model are missed least, each measured on the model that is left."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn.functional import cosine_similarity

from secateur.adapt.memory_model import MemoryModel
from secateur.adapt.ranking.windowed_forward import Passing
from secateur.core.graph import Group
from secateur.core.progress import Progress
from secateur_runtime.ladder import Rung, half_of, step

RECHECKED = 6
"""Units measured anew before the best of them goes, at most."""
FIRST = 12
"""Units, those of least influence, measured before influence is asked what the others would cost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """What may go.

    widths: how many steps an FFN goes in, the last of which drops it; groups: key-value groups go one by one.
    protect: groups that stay whole. The first and the last block always keep both halves.
    context: tokens in all caches together, by which the bytes of key-value groups are priced.
    """

    widths: int = 2
    groups: bool = False
    protect: frozenset[str] = frozenset()
    context: int = 4096


@dataclass(slots=True)
class Cost:
    """What the search took: units measured, and passes through halves.

    `naive`: such passes if every unit left were measured at every step, from the start.
    """

    measured: int = 0
    halves: int = 0
    heads: int = 0
    naive: int = 0
    naive_heads: int = 0


@dataclass(slots=True)
class _Tried:
    """A unit measured at the present level.

    The loss without it, and the states behind each half from its own on.
    """

    loss: float
    states: list[Tensor] = field(repr=False)


class Search:
    """Greedy search that measures as little as it can.

    The states before every half are kept, so that a half is measured from itself on. A unit is measured again
    only when what it cost last makes it the cheapest (lazily, as costs mostly rise), and for the first time
    only when its influence does: how far it turns the states behind its half, times the least that influence
    has cost so far.
    """

    def __init__(self, passing: Passing, memory: MemoryModel, steps: Steps) -> None:
        self._passing = passing
        self._memory = memory
        self._steps = steps
        graph = memory.graph
        self._groups: dict[str, Group] = {
            group.name: group for block in graph.blocks for group in block.groups
        }
        self._halves = passing.halves
        self._place = {name: place for place, name in enumerate(self._halves)}
        self.kept = {name: self._groups[name].size for name in self._halves}
        outer = (graph.blocks[0].index, graph.blocks[-1].index)
        self._staying = {f"{index}.{kind}" for index in outer for kind in ("kv", "ffn")}
        self.cost = Cost()
        self.measured: list[dict[str, float]] = [{}]
        self._seams = [passing.embedded()]
        for name in self._halves:
            self._seams.append(self._through(name, self.kept[name], self._seams[-1]))
        self.loss = self._loss(self._seams[-1])
        self._known: dict[str, float] = {}
        self._influence: dict[str, float] = {}

    def rungs(self, floor: float, progress: Progress) -> Iterator[Rung]:
        """Yield rung after rung until what is left takes at most `floor` of the bytes of the whole, or nothing may go."""
        whole = self._bytes({})
        gone = len(self.measured) - 1
        progress.start("rank", gone + len(self._offers()), gone)
        while self._bytes(self.kept) > floor * whole and (offers := self._offers()):
            unit, tried = self._cheapest(offers)
            group, self.kept[group] = step(unit, self.kept)
            self._seams[self._place[group] + 1 :] = tried.states
            self.loss = tried.loss
            self._known.pop(unit, None)
            self.measured.append({})
            progress.step(f"{unit}: {self.loss:.4f}")
            progress.note(f"{unit}: loss {self.loss:.4f}, {self.cost.measured} measured")
            yield self.rung(unit)

    def state(self) -> dict[str, Any]:
        """Return how far it is, as plain data."""
        held = {
            "kept": self.kept,
            "loss": self.loss,
            "known": self._known,
            "influence": self._influence,
            "measured": self.measured,
        }
        return {**held, "cost": asdict(self.cost)}

    def go_on(self, state: Mapping[str, Any]) -> None:
        """Go on from there, if nothing is gone yet.

        What `state` returned for the same model, text and steps.
        """
        self.kept.update(state["kept"])
        for place, name in enumerate(self._halves):
            self._seams[place + 1] = self._through(name, self.kept[name], self._seams[place])
        self.loss = state["loss"]
        self.measured = state["measured"]
        self.cost = Cost(**state["cost"])
        self._known = state["known"]
        self._influence = state["influence"]

    def rung(self, unit: str) -> Rung:
        """Return the present level, reached by a unit's leaving."""
        memory = self._memory
        kept = self.kept
        return Rung(
            unit=unit,
            loss=self.loss,
            weight_bytes=memory.weights(kept),
            kv_values=memory.kv_values(kept),
            flops=memory.flops(kept),
        )

    def _offers(self) -> dict[str, int]:
        """Return what may go next, with the bytes that this frees."""
        found: dict[str, int] = {}
        for name, kept in self.kept.items():
            if not kept or name in self._steps.protect:
                continue
            narrower = self._narrower(name)
            if narrower:
                found[f"{name}:{narrower}"] = self._price(name, kept - narrower)
            if name not in self._staying:
                found[half_of(name)] = self._price(name, kept)
        return found

    def _narrower(self, name: str) -> int:
        """Return the next number of units, 0 if the next step is the last."""
        group = self._groups[name]
        kept = self.kept[name]
        if group.kind == "kv":
            return kept - 1 if self._steps.groups else 0
        # Whole multiples of 32 where the FFN is large enough for them.
        align = 32 if group.size >= 32 * self._steps.widths else 1
        widths = [
            round(group.size * part / self._steps.widths / align) * align
            for part in range(1, self._steps.widths)
        ]
        return max((width for width in widths if width < kept), default=0)

    def _price(self, name: str, units: int) -> int:
        group = self._groups[name]
        width = (
            self._memory.graph.blocks[int(name.partition(".")[0])].shape.head_dim if group.kind == "kv" else 0
        )
        return units * (
            self._memory.unit_bytes(group) + 2 * width * self._memory.kv.itemsize * self._steps.context
        )

    def _bytes(self, kept: Mapping[str, int]) -> int:
        return (
            self._memory.weights(kept)
            + self._memory.kv_values(kept) * self._memory.kv.itemsize * self._steps.context
        )

    def _cheapest(self, offers: Mapping[str, int]) -> tuple[str, _Tried]:
        """Return the unit that costs least for each byte, and what was measured of it."""
        self.cost.naive += len(offers) * (sum(map(bool, self.kept.values())) - 1)
        self.cost.naive_heads += len(offers)
        if not self._known:
            for unit in heapq.nsmallest(FIRST, offers, key=lambda unit: self._turned(unit) / offers[unit]):
                self._measure(unit)
        fresh: dict[str, float] = {}
        best: tuple[str, _Tried] | None = None
        queue = [(self._guess(unit) / price, unit) for unit, price in offers.items()]
        heapq.heapify(queue)
        while best is None or (queue[0][1] != best[0] and len(fresh) < RECHECKED):
            _, unit = heapq.heappop(queue)
            tried = self._measure(unit)
            fresh[unit] = (tried.loss - self.loss) / offers[unit]
            heapq.heappush(queue, (fresh[unit], unit))
            if best is None or fresh[unit] < fresh[best[0]]:
                best = unit, tried
            while queue[0][1] in fresh and queue[0][1] != best[0]:
                heapq.heappop(queue)
        return best

    def _guess(self, unit: str) -> float:
        """Return what a unit cost when it was last measured, or what its influence says."""
        if unit in self._known:
            return self._known[unit]
        rates = [
            cost / self._influence[name] for name, cost in self._known.items() if self._influence.get(name)
        ]
        return self._turned(unit) * float(np.quantile(rates, 0.1).clip(0)) if rates else 0.0

    def _turned(self, unit: str) -> float:
        """Return the influence of a unit when it was first asked for."""
        if unit not in self._influence:
            self._influence[unit] = self._turn(unit)
        return self._influence[unit]

    def _turn(self, unit: str) -> float:
        """Return how far the states behind a half turn on average, as 1 - cos, if a unit of it goes.

        Block influence (arXiv:2403.03853).
        """
        group, count = step(unit, self.kept)
        place = self._place[group]
        after = self._through(group, count, self._seams[place])
        return float(1 - cosine_similarity(after[0], self._seams[place + 1][0], dim=-1).mean())

    def _measure(self, unit: str) -> _Tried:
        group, count = step(unit, self.kept)
        place = self._place[group]
        states = [self._through(group, count, self._seams[place])]
        for name in self._halves[place + 1 :]:
            states.append(self._through(name, self.kept[name], states[-1]))
        loss = self._loss(states[-1])
        self.cost.measured += 1
        self._known[unit] = loss - self.loss
        self.measured[-1][unit] = loss
        return _Tried(loss, states)

    def _through(self, name: str, units: int, states: Tensor) -> Tensor:
        self.cost.halves += bool(units)
        return self._passing.through(name, units, states)

    def _loss(self, states: Tensor) -> float:
        self.cost.heads += 1
        return self._passing.loss(states)
