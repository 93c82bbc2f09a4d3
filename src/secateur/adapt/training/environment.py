"""The two gymnasium environments on which a policy can be trained."""

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
    """Moments of one synthetic trace after another; the seed of `reset` determines the first trace."""

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
        """Return the observation of a moment; its latency is drawn at random."""
        seen = observed(moment, self.choices, np.arange(len(self.choices.units)) < level)
        low, high = np.log(_LATENCIES)
        return replace(seen, latency=float(np.exp(self.np_random.uniform(low, high))))


class UnitGame(_Game):
    """Choose the next step of the ladder, in any valid order, or stop (as RAP, arXiv:2505.17138).

    An episode is one moment. Actions `0..n-1` take a step, `n` stops. The observation is `features`, the
    share of the whole need that is still missing, and the mask of removed steps, `[10 + n]`.

    Let q be the perplexity of the whole model divided by the present one (`Choices.loss`), and m the share of
    the whole need that is missing (0 once the model fits). Taking a step pays the increase of q (negative)
    plus the decrease of m. The episode ends as soon as the model fits, by stopping if it fits at the start,
    and when all steps are taken; if it does not fit then, the last step pays m - q.

    Invalid actions change nothing and cost 0.1: a step that is taken or lacks its predecessor, or stopping
    too early. After 4 n actions the episode is cut off. The rewards of an episode without mistakes sum to m
    at its start minus the lost quality: m is a potential (Ng et al., 1999), which speeds up learning and
    leaves the best policy unchanged.
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
        # The previous level carries no information here, and the network must learn that.
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

    An episode is one request; each of its moments is a step. Actions `0..n` are levels. The observation is
    `features`, `[9]`. The reward is the perplexity of the whole model divided by that at the level, minus
    1, if the request fits there to its end, else -1.
    """

    def __init__(self, choices: Choices, traces: Traces) -> None:
        super().__init__(choices, traces, len(NAMES), len(choices.units) + 1)
        self._ahead: Moment | None = None
        self._level = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Vector, dict[str, Any]]:
        """Start at the next request, at the level of the last one.

        After a seed the level is 0.
        """
        super().reset(seed=seed)
        self._restart(seed)
        self._ahead, self._level = (None, 0) if seed is not None else (self._ahead, self._level)
        self._now = self._ahead or self._next()
        self._seen = self._sense(self._now, self._level)
        return features(self.choices, self._seen), {}

    def step(self, action: np.int64) -> tuple[Vector, float, bool, bool, dict[str, Any]]:
        """Set the level for this moment and move to the next."""
        self._level = int(action)
        reward = quality_left(self.choices, np.arange(len(self.choices.units)) < self._level, self._seen) - 1
        self._ahead = self._next()
        done = self._ahead.request != self._now.request or self._ahead.time < self._now.time
        if not done:
            self._now = self._ahead
            self._seen = self._sense(self._now, self._level)
        return features(self.choices, self._seen), reward, done, False, {}
