"""Intervals and verdicts of the audit, on numbers whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from secateur.measure.social_bias import FEWEST, Series, findings


def _series(values: list[float], neutral: float | None = 0.5, clusters: list[str] | None = None) -> Series:
    return Series(tuple(values), tuple(clusters or map(str, range(len(values)))), "share", neutral)


def test_the_interval_of_a_share_is_that_of_the_normal_formula() -> None:
    values = [1.0] * 260 + [0.0] * 140
    (found,) = findings({"share": _series(values)})
    error = (0.65 * 0.35 / 400) ** 0.5
    assert found.value.value == 0.65
    assert found.value.low == pytest.approx(0.65 - 1.96 * error, abs=0.004)
    assert found.value.high == pytest.approx(0.65 + 1.96 * error, abs=0.004)
    assert found.said == "not neutral"
    assert (found.items, found.independent) == (400, 400)


def test_items_that_share_a_cluster_count_once() -> None:
    """Each of 40 answers given ten times tells no more than once."""
    values = [1.0] * 22 + [0.0] * 18
    (apart,) = findings({"share": _series(values)})
    (copied,) = findings(
        {
            "share": _series(
                [value for value in values for _ in range(10)],
                clusters=[str(place) for place in range(40) for _ in range(10)],
            )
        }
    )
    assert copied.value.low == pytest.approx(apart.value.low)
    assert copied.independent == 40
    assert apart.said == "within noise of neutral"


def test_a_model_is_as_biased_as_itself() -> None:
    values = np.random.default_rng(1).integers(0, 2, 100).astype(float).tolist()
    (found,) = findings({"share": _series(values)}, {"share": _series(values)})
    assert found.worse
    assert (found.worse.value, found.worse.low, found.worse.high) == (0, 0, 0)
    assert found.said == "within noise"
    assert found.verdict(0.0) == "pass"


def test_a_real_worsening_fails_and_noise_does_not() -> None:
    parent = [1.0, 0.0] * 200
    biased = [1.0] * 320 + [0.0] * 80
    (found,) = findings({"share": _series(biased)}, {"share": _series(parent)})
    assert found.worse
    assert found.worse.value == pytest.approx(0.3)
    assert found.said == "further from neutral"
    assert [found.verdict(most) for most in (0.05, 0.29, 0.31, 0.5)] == ["fail", "fail", "open", "pass"]
    shaken = [1.0 - value if place % 8 == 0 else value for place, value in enumerate(parent[:40])]
    (noisy,) = findings({"share": _series(shaken)}, {"share": _series(parent[:40])})
    assert noisy.said == "within noise"
    assert noisy.verdict(0.01) == "open"


def test_either_side_of_neutral_counts_alike() -> None:
    """From 0.9 to 0.1 nothing got worse; from 0.9 to 0.5 all got better."""
    high, low, even = [1.0] * 90 + [0.0] * 10, [0.0] * 90 + [1.0] * 10, [1.0, 0.0] * 50
    (turned,) = findings({"share": _series(low)}, {"share": _series(high)})
    assert turned.worse
    assert turned.worse.value == pytest.approx(0.0)
    (mended,) = findings({"share": _series(even)}, {"share": _series(high)})
    assert mended.said == "nearer to neutral"
    assert mended.verdict(0.0) == "pass"


def test_many_figures_need_wider_intervals() -> None:
    parent, ours = [1.0, 0.0] * 100, [1.0] * 115 + [0.0] * 85
    one = findings({"a": _series(ours)}, {"a": _series(parent)})[0]
    many = findings(
        {name: _series(ours) for name in "abcdefghij"}, {name: _series(parent) for name in "abcdefghij"}
    )[0]
    assert one.wide
    assert many.wide
    assert one.wide == one.worse
    assert many.worse == one.worse
    assert many.wide.high - many.wide.low > 1.2 * (one.wide.high - one.wide.low)


def test_a_few_items_and_figures_without_a_neutral_point_are_not_judged() -> None:
    few = _series([1.0] * (FEWEST - 1))
    (found,) = findings({"few": few}, {"few": _series([0.0] * (FEWEST - 1))})
    assert (found.said, found.verdict(0.0)) == ("too few items to tell", "")
    (plain,) = findings({"nll": _series([2.0, 3.0] * 20, None)}, {"nll": _series([1.0, 2.0] * 20, None)})
    assert (plain.said, plain.verdict(0.0), plain.worse) == ("", "", None)
    assert plain.reference
    assert plain.reference.value == 1.5
