"""The roofline by hand, and devices with and without rates."""

from __future__ import annotations

import numpy as np
import pytest
from tests.adapt.ladders import choices_of

from secateur.adapt.replay.speed_model import Roofline, held, speed_of
from secateur.device.profile import load_profile
from secateur_runtime.errors import UsageError

CHOICES = choices_of(["1.ffn", "2.attn"], [(4_000, 0), (1_000, 400)], [0.1, 0.5], [2.0, 2.1, 2.6])
GONE = np.array([False, True])


def test_what_remains_without_some_steps() -> None:
    assert held(CHOICES, GONE) == (9_000, 600, 18_000)


def test_a_step_takes_as_long_as_the_slower_of_reading_and_computing() -> None:
    reading = Roofline(1_000.0, 1e12, "test")
    computing = Roofline(1e12, 1_000.0, "test")
    assert reading.decode(CHOICES, GONE, 2, 10) == (9_000 + 600 * 20) / 1_000
    assert computing.decode(CHOICES, GONE, 2, 10) == 18_000 * 2 / 1_000
    assert reading.prefill(CHOICES, GONE, 2, 10) == 9_000 / 1_000
    assert computing.prefill(CHOICES, GONE, 2, 10) == 18_000 * 20 / 1_000


def test_a_profile_gives_its_rates_or_is_refused() -> None:
    for name in ("h100", "pi5", "cortex-m7"):
        figures = load_profile(name).figures
        if "matrix" in figures and ("stream" in figures or "bandwidth" in figures):
            speed = speed_of(name)
            assert speed.operations == figures["matrix"].value
            assert speed.source == load_profile(name).name
        else:
            with pytest.raises(UsageError, match="has no measured speed of reading and computing"):
                speed_of(name)
