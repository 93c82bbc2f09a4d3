"""The memory controller over the fake model: it shrinks at once and restores after a delay."""

from __future__ import annotations

import time

import pytest
from tests.secateur_runtime.server.fakes import PER_TOKEN, UNITS, WEIGHTS, FakeModel, FakeSenses, fake_choices

from secateur_runtime.policies import make_policy
from secateur_runtime.sensors import MemoryBound, Sensed
from secateur_runtime.server.engine.memory_controller import ControllerSettings, Load, MemoryController

DELAY = 0.05
WHOLE = 1 << 40


def _controller(
    senses: FakeSenses, *, policy: str = "greedy", delay: float = DELAY, most_loss: float = 1.0
) -> tuple[FakeModel, MemoryController]:
    model = FakeModel()
    senses.model = model
    choices = fake_choices()
    settings = ControllerSettings(headroom=0, least=0, restore_delay=delay, most_loss=most_loss)
    return model, MemoryController(model, choices, make_policy(policy, choices), senses, settings)


def _settle(controller: MemoryController, loads: list[Load] | None = None) -> None:
    controller.look(0, now=True)
    controller.settle(loads or [], 0)


def test_less_memory_raises_the_level_and_counts_as_a_shrink() -> None:
    senses = FakeSenses()
    model, controller = _controller(senses)
    senses.limit = WEIGHTS[2] + PER_TOKEN
    _settle(controller)
    assert model.levels == [2]
    assert (controller.shrinks, controller.restores) == (1, 0)


def test_more_memory_lowers_the_level_after_the_delay_and_counts_as_a_restore() -> None:
    senses = FakeSenses()
    model, controller = _controller(senses)
    senses.limit = WEIGHTS[2] + PER_TOKEN
    _settle(controller)
    senses.limit = WHOLE
    started = time.monotonic()
    _settle(controller)
    assert model.levels == [2], "not at once"
    while len(model.levels) == 1:
        assert time.monotonic() - started < 10
        _settle(controller)
    assert model.levels == [2, 0]
    assert time.monotonic() - started >= DELAY
    assert (controller.shrinks, controller.restores) == (1, 1)


@pytest.mark.parametrize("interruption", ["a stall", "less memory"])
def test_the_delay_starts_again_after_an_interruption(interruption: str) -> None:
    senses = FakeSenses()
    model, controller = _controller(senses, delay=3600)
    tight = WEIGHTS[1] + PER_TOKEN
    senses.limit = tight
    _settle(controller)
    senses.limit = WHOLE
    _settle(controller)
    assert controller._restorable_since is not None
    senses.stalled = 0.5 if interruption == "a stall" else 0.0
    senses.limit = WHOLE if interruption == "a stall" else tight
    _settle(controller)
    assert controller._restorable_since is None
    assert model.levels == [1]


def test_a_restore_needs_twice_the_headroom() -> None:
    """Otherwise the next token would shrink the model again."""
    senses = FakeSenses()
    model, choices = FakeModel(), fake_choices()
    senses.model = model
    controller = MemoryController(
        model,
        choices,
        make_policy("greedy", choices),
        senses,
        ControllerSettings(headroom=0, least=1000, restore_delay=0),
    )
    senses.limit = WEIGHTS[1] + PER_TOKEN + 1000
    _settle(controller)
    senses.limit = WEIGHTS[0] + PER_TOKEN + 1999
    _settle(controller)
    assert model.levels == [1]
    senses.limit += 1
    _settle(controller)
    assert model.levels == [1, 0]


def test_available_is_what_is_free_less_the_headroom_plus_what_the_model_holds() -> None:
    model, choices = FakeModel(), fake_choices()
    bounds = (MemoryBound("loose", 10_000_000, 1_000_000), MemoryBound("tight", 2_000_000, 1_500_000))
    controller = MemoryController(
        model,
        choices,
        make_policy("none", choices),
        lambda: Sensed(bounds),
        ControllerSettings(headroom=0.1, least=50_000),
    )
    assert controller.available(700) == 500_000 - 200_000 + WEIGHTS[0] + 700
    assert controller.available(700, 2) == 500_000 - 400_000 + WEIGHTS[0] + 700


def test_sequences_fit_only_at_levels_whose_loss_is_acceptable() -> None:
    senses = FakeSenses()
    _, controller = _controller(senses, most_loss=0.5)
    loads = [Load(10, 40), Load(2, 20)]
    need = 60 * PER_TOKEN
    assert controller.fits(loads, WEIGHTS[2] + need)
    assert not controller.fits(loads, WEIGHTS[2] + need - 1), "level 3 loses 1.0 nats"


def test_a_running_request_is_answered_at_an_acceptable_level_even_if_memory_is_short() -> None:
    senses = FakeSenses()
    model, controller = _controller(senses, most_loss=0.5)
    senses.limit = WEIGHTS[3] + PER_TOKEN * 10
    _settle(controller, [Load(2, 10)])
    assert model.levels == [2]
    _settle(controller)
    assert model.levels == [2, 3], "without a request the policy decides alone"


def test_the_loss_is_that_of_the_level() -> None:
    senses = FakeSenses()
    model, controller = _controller(senses)
    assert (controller.loss, controller.levels) == (2.0, 4)
    model.units = UNITS[:2]
    assert controller.loss == 2.3
