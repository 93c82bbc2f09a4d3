"""The two games: gymnasium's own checker, rewards worked out by hand, and the same seed twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tests.adapt.ladders import choices_of

from secateur.adapt.replay.traces import Moment, synthetic
from secateur_runtime.ladder_costs import Choices

pytest.importorskip("gymnasium")

from gymnasium.utils.env_checker import check_env

from secateur.adapt.training.environment import LevelGame, UnitGame

CHOICES = choices_of(
    ["1.ffn:64", "2.attn", "1.ffn"], [(400, 0), (100, 200), (600, 0)], [0.1, 0.3, 0.2], [2.0, 2.1, 2.5, 3.0]
)
GAMES = [UnitGame, LevelGame]
Game = Callable[[Choices, Callable[[int], list[Moment]]], Any]


def traces(seed: int) -> list[Moment]:
    return synthetic("bursts", CHOICES.whole, budget=0.9, requests=3, seed=seed)


def fixed(available: float) -> Callable[[int], list[Moment]]:
    return lambda seed: [Moment(time=0, request=0, batch=1, tokens=2, remaining=1, available=available)]


@pytest.mark.parametrize("game", GAMES)
@pytest.mark.filterwarnings(
    "ignore:.*render:UserWarning",
    "ignore:.*spec:UserWarning",
    "ignore:.*-inf:UserWarning",
    "ignore:.*infinity:UserWarning",
)
def test_gymnasium_finds_nothing_wrong(game: Game) -> None:
    check_env(game(CHOICES, traces), skip_render_check=True)


@pytest.mark.parametrize("game", GAMES)
def test_the_same_seed_plays_the_same(game: Game) -> None:
    def play(seed: int) -> list[Any]:
        env = game(CHOICES, traces)
        seen, _ = env.reset(seed=seed)
        found, actions = [seen.tolist()], np.random.default_rng(0)
        for _ in range(60):
            seen, reward, done, _, _ = env.step(actions.integers(4))
            found.append([*seen.tolist(), reward, done])
            if done:
                env.reset()
        return found

    assert play(1) == play(1)
    assert play(1) != play(2)


def test_units_pay_the_quality_they_cost_and_end_when_all_fits() -> None:
    whole = CHOICES.whole(1, 3) - 7.0  # activations are of the two tokens that are new
    env, missing = UnitGame(CHOICES, fixed(whole - 900)), 900 / whole
    env.reset(seed=0)
    _, reward, done, _, _ = env.step(np.int64(0))
    assert not done
    assert reward == pytest.approx(np.exp(-0.1) - 1 + 400 / whole)
    seen, last, done, _, _ = env.step(np.int64(2))
    # 1.ffn:64 and 1.ffn cost 0.3 together; on the ladder's own way that much is lost between its first and
    # second step
    assert done
    assert reward + last == pytest.approx(np.exp(-(0.1 + 0.4 * 2 / 3)) - 1 + missing)
    assert seen[-3:].tolist() == [1, 0, 1]


@pytest.mark.parametrize("actions", [[3], [2], [0, 0], [0, 3]])
def test_what_cannot_be_done_changes_nothing_and_costs_a_little(actions: list[int]) -> None:
    env = UnitGame(CHOICES, fixed(CHOICES.whole(1, 3) - 1_500))
    seen, _ = env.reset(seed=0)
    for action in actions[:-1]:
        seen, *_ = env.step(np.int64(action))
    again, reward, done, cut, _ = env.step(np.int64(actions[-1]))
    assert (again.tolist(), reward, done, cut) == (seen.tolist(), -0.1, False, False)
    assert [env.step(np.int64(actions[-1]))[3] for _ in range(12 - len(actions))] == [False] * (
        11 - len(actions)
    ) + [True]


def test_when_all_is_gone_and_it_does_not_fit_everything_is_lost() -> None:
    whole = CHOICES.whole(1, 3) - 7.0
    env = UnitGame(CHOICES, fixed(whole - 3_000))
    env.reset(seed=0)
    steps = [env.step(np.int64(action)) for action in (1, 0, 2)]
    assert [done for _, _, done, _, _ in steps] == [False, False, True]
    assert sum(float(reward) for _, reward, _, _, _ in steps) == pytest.approx(3_000 / whole - 1)


def test_stopping_where_all_fits_loses_nothing() -> None:
    env = UnitGame(CHOICES, fixed(CHOICES.whole(1, 3)))
    env.reset(seed=0)
    assert env.step(np.int64(3))[1:3] == (0.0, True)


def test_levels_pay_what_is_left_if_they_fit() -> None:
    env = LevelGame(CHOICES, fixed(float(CHOICES.weights[2] + 3 * CHOICES.cache[2] + 14)))
    rewards = []
    for level in range(4):
        env.reset(seed=0)
        rewards.append(env.step(np.int64(level))[1])
    assert rewards == [-1, -1, pytest.approx(np.exp(-0.5) - 1), pytest.approx(np.exp(-1.0) - 1)]


def test_a_request_is_an_episode_of_the_level_game() -> None:
    env = LevelGame(CHOICES, traces)
    env.reset(seed=0)
    ends = [env.step(np.int64(0))[2] for _ in range(8)]
    assert ends == [False] * 7 + [True]
    seen, _ = env.reset()
    assert seen[0] == 1
