"""The time model: it finds what made the times, and its interval holds what was published."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from secateur.device.decode_model import LAYER, Clock, TokenWork, clock_of, fit, nonnegative, share_of_stream
from secateur.device.profile import OUTPUT, Figure, Profile, Published, Rates, load_profile, profile_names

RATES = Rates(
    threads=1,
    layer=2e-5,
    weights={"f16": 8e9, "q8_0": 5e9, OUTPUT: 1e10},
    cache=4e9,
    base=6e7,
    copied=[],
    spread=0.02,
    runtime="llama.cpp",
    taken="2026-01-01",
)


def _published(bytes_: float, layers: int, seconds: float) -> Published:
    return Published(
        model="a",
        runtime="b",
        bytes=bytes_,
        layers=layers,
        tokens_per_second=1 / seconds,
        source="c",
        confirmed=True,
    )


@settings(deadline=None)
@given(st.floats(1e-6, 1e-3), st.floats(1e9, 1e12))
def test_two_published_speeds_tell_blocks_from_bytes(layer: float, rate: float) -> None:
    speeds = [
        _published(count, layers, layers * layer + count / rate) for count, layers in ((9e7, 30), (4.5e9, 32))
    ]
    found, bandwidth, known = fit(speeds)
    assert known
    assert found == pytest.approx(layer, rel=1e-3, abs=1e-9)
    assert bandwidth == pytest.approx(rate, rel=1e-3)


def test_one_published_speed_tells_bytes_only() -> None:
    layer, rate, known = fit([_published(4.5e9, 32, 32 * LAYER + 0.09)])
    assert (layer, known) == (LAYER, False)
    assert rate == pytest.approx(5e10)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_nonnegative_least_squares(seed: int) -> None:
    rows = np.random.default_rng(seed).uniform(0.1, 1, size=(6, 2)) * np.array([1.0, 1e-9])
    ours, reference = (
        nonnegative(rows),
        nnls(rows * np.array([1.0, 1e9]), np.ones(6))[0] * np.array([1.0, 1e9]),
    )
    assert np.allclose(ours, reference, rtol=1e-6)


@pytest.mark.parametrize("name", [name for name in profile_names() if load_profile(name).published])
def test_the_interval_holds_what_was_published(name: str) -> None:
    profile = load_profile(name)
    clock = clock_of(profile)
    for one in profile.published:
        speed = clock.speed(TokenWork({"q4_0": one.bytes}, one.layers, 0))
        assert speed.low <= one.tokens_per_second <= speed.high, one.model
        assert speed.low < speed.likely < speed.high


def test_every_byte_and_block_takes_its_time() -> None:
    profile = load_profile("pi5").model_copy(update={"rates": RATES})
    clock = clock_of(profile)
    assert clock.seconds(TokenWork({"f16": 8e6, "q8_0": 5e6, OUTPUT: 2e7}, 10, 1000, 4e6)) == pytest.approx(
        1e-3 + 1e-3 + 2e-3 + 2e-4 + 1e-3
    )
    assert clock.seconds(TokenWork({"q2_k": 5e6}, 0, 0)) == pytest.approx(1e-3), (
        "a type that was not measured is as slow as the slowest"
    )
    assert clock.within == 0.15
    noisy = profile.model_copy(update={"rates": RATES.model_copy(update={"spread": 0.5})})
    assert clock_of(noisy).within == 0.5


def test_a_device_nobody_measured_is_reckoned_from_its_bandwidth() -> None:
    profile = load_profile("phone-midrange")
    clock = clock_of(profile)
    assert clock.other < profile.figure("bandwidth")
    work = TokenWork({"q4_0": 9e7}, 30, 49152)
    assert clock.speed(work).high / clock.speed(work).low > 3, "a guess must look like one"


def test_this_machine_calibrates_a_measured_bandwidth() -> None:
    local = load_profile("pi5")
    local = local.model_copy(
        update={
            "rates": RATES,
            "figures": local.figures | {"stream": Figure(value=1e10, source="x", confirmed=True)},
        }
    )
    assert share_of_stream(local) == pytest.approx(0.8)
    other: Profile = load_profile("pi5").model_copy(update={"published": []})
    assert clock_of(other, local).other == pytest.approx(0.8 * other.figure("stream"))
    assert "as on this machine" in clock_of(other, local).basis
    assert "by assumption" in clock_of(other).basis


def test_a_longer_cache_is_slower() -> None:
    clock = Clock({}, 1e9, 1e9, 0.0, 0.0, 0.1, "")
    assert clock.speed(TokenWork({"": 1e6}, 1, 1, 1e6)).likely == pytest.approx(
        clock.speed(TokenWork({"": 1e6}, 1, 1)).likely / 2
    )
