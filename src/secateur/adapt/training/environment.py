"""The two games that a policy can be trained on, for gymnasium."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from secateur.adapt.replay.reward import observed, quality, quality_left
from secateur.adapt.replay.traces import Moment
from secateur_runtime.ladder_costs import Choices, Observation
from secateur_runtime.policies.observation_features import NAMES, Vector, features, still_missing

Traces = Callable[[int], Sequence[Moment]]
"""Returns the trace of a seed."""

_SEEDS = 2**31 - 1
_LATENCIES = (1e-3, 1.0)
_MISTAKE = 0.1
_LONGEST = 4


class _Game(gymnasium.Env[Vector, np.int64]):
    """Moments of one made-up trace after another; the first trace follows from the seed of `reset`."""

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012

    def __init__(self, choices: Choices, traces: Traces, seen: int, actions: int) -> None:
        self.choices = choices
        self._traces = traces
        self._moments: Iterator[Moment] = iter(())
        self.observation_space = spaces.Box(-np.inf, np.inf, (seen,), np.float32)
        self.action_space = spaces.Discrete(actions)

    def _restart(self, seed: int | None) -> None:
        if seed is not None:
            self._moments = iter(())

    def _next(self) -> Moment:
        moment = next(self._moments, None)
        while moment is None:
            self._moments = iter(self._traces(int(self.np_random.integers(_SEEDS))))
            moment = next(self._moments, None)
        return moment

    def _sense(self, moment: Moment, level: int) -> Observation:
        """Return what is seen of a moment; the latency is of another run, so it is made up."""
        seen = observed(moment, self.choices, np.arange(len(self.choices.units)) < level)
        low, high = np.log(_LATENCIES)
        return replace(seen, latency=float(np.exp(self.np_random.uniform(low, high))))


class UnitGame(_Game):
    """Choose the next step of the ladder to take, in any order that the halves of blocks allow, or stop (as RAP, arXiv:2505.17138).

    An episode is one moment. Actions `0..n-1` take a step, `n` stops. Seen: `features`, the share of the whole need that is still
    missing, and which steps are gone, `[10 + n]`. Reward, with q = perplexity of the whole model / perplexity with what is gone
    (`Choices.loss`) and m = share of the whole need that is missing (0 once it fits): taking a step pays q after it less q before it,
    and m before it less m after it. The episode ends as soon as all fits, by stopping where it did at once, and when all is gone, which pays
    m - q if it does not fit then. What cannot be done (a step that is gone or whose predecessor in its half is not; stopping before
    all fits) changes nothing and costs 0.1; after 4 n actions the episode is cut off. So the rewards of an episode without mistakes sum to m
    at its start less the quality that was lost: m is a potential (Ng et al., 1999), which helps to learn and leaves the best policy as it is.
    """

    def __init__(self, choices: Choices, traces: Traces) -> None:
        super().__init__(choices, traces, len(NAMES) + 1 + len(choices.units), len(choices.units) + 1)
        self._clear()

    def _clear(self) -> None:
        self._gone = np.zeros(len(self.choices.units), dtype=bool)
        self._taken = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Vector, dict[str, Any]]:
        """Start at the next moment."""
        super().reset(seed=seed)
        self._restart(seed)
        self._clear()
        # The level of before says nothing here, which the network must learn.
        self._seen = self._sense(self._next(), int(self.np_random.integers(len(self._gone) + 1)))
        self._quality = 1.0
        return self._vector(), {}

    def step(self, action: np.int64) -> tuple[Vector, float, bool, bool, dict[str, Any]]:
        """Take a step or stop."""
        self._taken += 1
        if not self._possible(int(action)):
            return self._vector(), -_MISTAKE, False, self._taken >= _LONGEST * len(self._gone), {}
        reward = self._missing() - self._quality
        if action < len(self._gone):
            self._gone[action] = True
        self._quality = quality(self.choices, self.choices.loss(self._gone))
        missing = self._missing()
        gone = bool(self._gone.all())
        if not (missing and gone):
            reward += self._quality - missing
        return self._vector(), reward, gone or not missing, self._taken >= _LONGEST * len(self._gone), {}

    def _possible(self, action: int) -> bool:
        if action == len(self._gone):
            return not self._missing()
        before = self.choices.before[action]
        return not self._gone[action] and (before is None or bool(self._gone[before]))

    def _missing(self) -> float:
        short = self.choices.need(self._gone, self._seen) - self._seen.available
        return max(0.0, short / (self.choices.missing(self._seen) + self._seen.available))

    def _vector(self) -> Vector:
        return np.concatenate(
            [features(self.choices, self._seen), still_missing(self.choices, self._seen, self._gone)]
        )


class LevelGame(_Game):
    """Choose the level of the ladder directly.

    An episode is one request; each of its moments is a step. Actions `0..n` are levels. Seen: `features`,
    `[9]`. Reward: perplexity of the whole model / perplexity at the level, less 1, if the request fits there
    to its end; else -1.
    """

    def __init__(self, choices: Choices, traces: Traces) -> None:
        super().__init__(choices, traces, len(NAMES), len(choices.units) + 1)
        self._ahead: Moment | None = None
        self._level = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Vector, dict[str, Any]]:
        """Start at the next request, at whatever level the last one ended.

        At the whole model after a seed.
        """
        super().reset(seed=seed)
        self._restart(seed)
        self._ahead, self._level = (None, 0) if seed is not None else (self._ahead, self._level)
        self._now = self._ahead or self._next()
        self._seen = self._sense(self._now, self._level)
        return features(self.choices, self._seen), {}

    def step(self, action: np.int64) -> tuple[Vector, float, bool, bool, dict[str, Any]]:
        """Take a level for this moment and go on to the next."""
        self._level = int(action)
        reward = quality_left(self.choices, np.arange(len(self.choices.units)) < self._level, self._seen) - 1
        self._ahead = self._next()
        done = self._ahead.request != self._now.request or self._ahead.time < self._now.time
        if not done:
            self._now = self._ahead
            self._seen = self._sense(self._now, self._level)
        return features(self.choices, self._seen), reward, done, False, {}
