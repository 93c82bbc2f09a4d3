"""Greedy search for the order of removal with the least loss, measured on the remaining model."""

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
"""Most units measured again before the best of them is removed."""
FIRST = 12
"""Units of least influence measured before the cost of the others is estimated from influence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """The steps that the search may take. The first and the last block always keep both sub-blocks.

    widths: number of steps to remove an FFN; the last one removes it whole. groups: whether key-value groups
    are removed one by one. protect: groups that stay whole.
    context: tokens in all caches together; it prices the bytes of key-value groups.
    """

    widths: int = 2
    groups: bool = False
    protect: frozenset[str] = frozenset()
    context: int = 4096


@dataclass(slots=True)
class Cost:
    """The effort of a search.

    measured: units measured. halves: passes through sub-blocks. heads: passes through the output head.
    naive, naive_heads: the same passes if every remaining unit were measured at every step, from the start.
    """

    measured: int = 0
    halves: int = 0
    heads: int = 0
    naive: int = 0
    naive_heads: int = 0


@dataclass(slots=True)
class _Tried:
    """A unit measured at the present level.

    loss: nats per token without it. states: hidden states after each sub-block, from its own on.
    """

    loss: float
    states: list[Tensor] = field(repr=False)


class Search:
    """Greedy search with few measurements.

    The hidden states before every sub-block are retained, so that a measurement starts at its own
    sub-block. A unit is measured again only if its last measured cost makes it the cheapest (lazily,
    because costs mostly rise). It is measured for the first time only if its influence makes it the
    cheapest. Influence is how far it turns the states after its sub-block, times a low quantile of the cost
    per influence so far.
    """

    def __init__(self, passing: Passing, memory: MemoryModel, steps: Steps) -> None:
        self._passing = passing
        self._memory = memory
        self._steps = steps
        graph = memory.graph
        self._groups: dict[str, Group] = {
            group.name: group for block in graph.blocks for group in block.groups
        }
        self._names = passing.halves
        self._place = {name: place for place, name in enumerate(self._names)}
        self.kept = {name: self._groups[name].size for name in self._names}
        outer = (graph.blocks[0].index, graph.blocks[-1].index)
        self._staying = {f"{index}.{kind}" for index in outer for kind in ("kv", "ffn")}
        self.cost = Cost()
        self.measured: list[dict[str, float]] = [{}]
        self._states = [passing.embedded()]
        for name in self._names:
            self._states.append(self._through(name, self.kept[name], self._states[-1]))
        self.loss = self._loss(self._states[-1])
        self._known: dict[str, float] = {}
        self._influence: dict[str, float] = {}

    def rungs(self, floor: float, progress: Progress) -> Iterator[Rung]:
        """Yield rungs until the rest takes at most `floor` of the whole bytes, or nothing may be removed."""
        whole = self._bytes({})
        done = len(self.measured) - 1
        progress.start("rank", done + len(self._offers()), done)
        while self._bytes(self.kept) > floor * whole and (offers := self._offers()):
            unit, tried = self._cheapest(offers)
            group, self.kept[group] = step(unit, self.kept)
            self._states[self._place[group] + 1 :] = tried.states
            self.loss = tried.loss
            self._known.pop(unit, None)
            self.measured.append({})
            progress.step(f"{unit}: {self.loss:.4f}")
            progress.note(f"{unit}: loss {self.loss:.4f}, {self.cost.measured} measured")
            yield self.rung(unit)

    def state(self) -> dict[str, Any]:
        """Return the progress of the search as plain data."""
        held = {
            "kept": self.kept,
            "loss": self.loss,
            "known": self._known,
            "influence": self._influence,
            "measured": self.measured,
        }
        return {**held, "cost": asdict(self.cost)}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Continue from a state, before anything is removed.

        state: returned by `state` for the same model, text and steps.
        """
        self.kept.update(state["kept"])
        for place, name in enumerate(self._names):
            self._states[place + 1] = self._through(name, self.kept[name], self._states[place])
        self.loss = state["loss"]
        self.measured = state["measured"]
        self.cost = Cost(**state["cost"])
        self._known = state["known"]
        self._influence = state["influence"]

    def rung(self, unit: str) -> Rung:
        """Return the rung of the present level; unit: the step that led to it."""
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
        """Return the units that may be removed next, with the bytes that this frees."""
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
        """Return the number of units after the next step, 0 if it is the last."""
        group = self._groups[name]
        kept = self.kept[name]
        if group.kind == "kv":
            return kept - 1 if self._steps.groups else 0
        # Multiples of 32 if the FFN is large enough.
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
        """Return the unit with the least cost per byte, and its measurement."""
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
        """Return the last measured cost of a unit, or an estimate from its influence."""
        if unit in self._known:
            return self._known[unit]
        rates = [
            cost / self._influence[name] for name, cost in self._known.items() if self._influence.get(name)
        ]
        return self._turned(unit) * float(np.quantile(rates, 0.1).clip(0)) if rates else 0.0

    def _turned(self, unit: str) -> float:
        """Return the influence of a unit, computed at the first call."""
        if unit not in self._influence:
            self._influence[unit] = self._turn(unit)
        return self._influence[unit]

    def _turn(self, unit: str) -> float:
        """Return 1 - cos between the states after a sub-block with and without a unit.

        This is block influence (arXiv:2403.03853), measured at the first position of the text.
        """
        group, count = step(unit, self.kept)
        place = self._place[group]
        after = self._through(group, count, self._states[place])
        return float(1 - cosine_similarity(after[0], self._states[place + 1][0], dim=-1).mean())

    def _measure(self, unit: str) -> _Tried:
        group, count = step(unit, self.kept)
        place = self._place[group]
        states = [self._through(group, count, self._states[place])]
        for name in self._names[place + 1 :]:
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
