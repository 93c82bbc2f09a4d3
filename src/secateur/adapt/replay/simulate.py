"""Simulate a trace under a policy: tokens served, loss, speed, and requests killed."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from secateur.adapt.replay.reward import observed
from secateur.adapt.replay.speed_model import Roofline, held
from secateur.adapt.replay.traces import Moment
from secateur_runtime.ladder_costs import Choices
from secateur_runtime.policies import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened:
    """The outcome of one moment.

    gone: removed steps. loss: nats per token. need: bytes that the model took. killed: whether that was more
    than available, so that the request was lost.
    served: tokens of all sequences since the previous moment. seconds: time for these, the prompt included.
    decision: seconds to decide.
    """

    moment: Moment
    gone: tuple[str, ...]
    loss: float
    need: float
    killed: bool
    served: int
    seconds: float
    decision: float


@dataclass(frozen=True, slots=True)
class Simulated:
    """The run of one policy over a trace."""

    policy: str
    happened: tuple[Happened, ...]

    @property
    def loss(self) -> float:
        """Mean nats per served token; NaN if none was served."""
        served = self.served
        return sum(one.loss * one.served for one in self.happened) / served if served else math.nan

    @property
    def served(self) -> int:
        """Tokens of all requests."""
        return sum(one.served for one in self.happened)

    @property
    def killed(self) -> float:
        """Share of requests that ended out of memory."""
        requests = {one.moment.request for one in self.happened}
        return len({one.moment.request for one in self.happened if one.killed}) / len(requests)

    @property
    def tokens_per_second(self) -> float:
        """Served tokens divided by the serving time, prompts and lost requests included."""
        seconds = sum(one.seconds for one in self.happened)
        return self.served / seconds if seconds else 0.0

    @property
    def changes(self) -> int:
        """How often the set of removed steps changed."""
        return sum(
            before.gone != after.gone for before, after in zip(self.happened, self.happened[1:], strict=False)
        )

    def summary(self) -> dict[str, float | int | str]:
        """Return the figures of a run by name; decision times are in microseconds."""
        decisions = np.array([one.decision for one in self.happened]) * 1e6
        return {
            "policy": self.policy,
            "loss": self.loss,
            "perplexity": math.exp(self.loss) if self.served else math.nan,
            "killed": self.killed,
            "served": self.served,
            "tokens_per_second": self.tokens_per_second,
            "changes": self.changes,
            "decision_median_us": float(np.median(decisions)),
            "decision_p99_us": float(np.quantile(decisions, 0.99)),
        }


def simulate(
    choices: Choices,
    name: str,
    policy: Policy,
    moments: Sequence[Moment],
    speed: Roofline,
    losses: Mapping[frozenset[str], float],
) -> Simulated:
    """Return the run of `policy` over a trace.

    A request that takes more memory than available is killed, and the rest of it is lost. Attention removed
    during a request stays removed until the request ends, because its cache lacks the tokens in between; an
    FFN may be restored at once.
    losses: measured losses by the set of removed steps; the others come from `Choices.loss`.
    """
    happened: list[Happened] = []
    state = _State(choices)
    for moment in moments:
        state.begin(moment)
        if state.dead:
            continue
        seen = observed(moment, choices, state.gone, state.latency)
        start = time.perf_counter()
        decision = policy(seen)
        took = time.perf_counter() - start
        state.gone = choices.mask(decision.units) | state.bound
        state.bound = state.gone & choices.caching
        happened.append(_lived(state, moment, speed, losses, took))
    return Simulated(name, tuple(happened))


class _State:
    """The state that lasts from one moment to the next.

    bound: mask of steps that cannot be undone before the request ends.
    """

    def __init__(self, choices: Choices) -> None:
        self.choices = choices
        self.gone = self.bound = np.zeros(len(choices.units), dtype=bool)
        self.request = -1
        self.tokens = 0
        self.latency = 0.0
        self.dead = False

    def begin(self, moment: Moment) -> None:
        """Reset the state of the request if `moment` belongs to another one."""
        if moment.request != self.request:
            self.request = moment.request
            self.tokens = 0
            self.dead = False
            self.bound = np.zeros_like(self.bound)


def _lived(
    state: _State, moment: Moment, speed: Roofline, losses: Mapping[frozenset[str], float], took: float
) -> Happened:
    choices = state.choices
    gone = state.gone
    weights, cache, _ = held(choices, gone)
    need = weights + cache * moment.batch * moment.tokens + choices.activations(moment.batch, moment.tokens)
    state.dead = need > moment.available
    steps = moment.tokens - state.tokens if state.tokens else 0
    if state.dead:
        served = 0
        seconds = 0.0
    else:
        served = moment.batch * steps
        each = speed.decode(choices, gone, moment.batch, moment.tokens)
        seconds = each * steps + (
            0.0 if state.tokens else speed.prefill(choices, gone, moment.batch, moment.tokens)
        )
        state.latency = each
    state.tokens = moment.tokens
    units = tuple(choices.units[index] for index in np.flatnonzero(gone))
    loss = losses.get(frozenset(units), choices.loss(gone))
    return Happened(
        moment=moment,
        gone=units,
        loss=loss,
        need=need,
        killed=state.dead,
        served=served,
        seconds=seconds,
        decision=took,
    )
