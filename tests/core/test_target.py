"""Budgets as people write them: parsed exactly, refused in one line, and moved to what can be reached."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur.core.footprint import Footprint
from secateur.core.target import Limit, Target, refuse_if_met
from secateur_runtime.errors import TargetError, UsageError

WHOLE = Footprint(parameters=1000, block_parameters=800, weight_bytes=2000, kv_values=10)
CUT = Footprint(parameters=777, block_parameters=577, weight_bytes=1554, kv_values=7)

amounts = st.decimals(1, 10**9, places=3).map(lambda amount: f"{amount.normalize():f}")
shares = st.decimals(Decimal("0.001"), Decimal("0.999"), places=3).map(
    lambda amount: f"{amount.normalize():f}"
)
percents = st.decimals(Decimal("0.01"), Decimal("99.99"), places=2).map(
    lambda amount: f"{amount.normalize():f}%"
)
byte_units = st.sampled_from(["", "B", "kB", "MB", "GB", "KiB", "MiB", "GiB"])
budgets = st.one_of(
    st.builds("params={}{}".format, amounts, st.sampled_from(["", "K", "M", "B", "G"])),
    st.builds("size={}{}".format, amounts, byte_units),
    st.builds("ram={}{}@ctx{}".format, amounts, byte_units, st.integers(1, 10**6)),
    st.builds("ratio={}".format, shares | percents),
    st.builds("{}={}".format, st.sampled_from(["params", "size"]), percents),
)
pieces = st.lists(
    st.sampled_from(
        [
            *("params", "size", "ram", "ratio", "kv", "=", "1", "0", ".", "9" * 20),
            *"%@ctx, -\n٣",
            "MB",
            "f32",
            "e9",
            "nan",
            "@ctx",
        ]
    )
)
footprints = st.builds(
    Footprint, st.integers(800, 10**9), st.integers(0, 800), st.integers(1, 10**10), st.integers(0, 10**6)
)


@given(st.lists(budgets, min_size=1, max_size=4))
def test_a_budget_survives_its_text(texts: list[str]) -> None:
    target = Target.parse(texts)
    assert Target.parse([str(target)]) == target
    assert Target.parse([",".join(texts)]) == target
    assert len(target.limits) == len(texts)


@given(st.text(max_size=40) | pieces.map("".join))
def test_any_other_text_is_refused_in_one_line_or_is_a_target(text: str) -> None:
    try:
        target = Target.parse([text])
    except TargetError as error:
        assert "\n" not in str(error)
    else:
        assert Target.parse([str(target)]) == target


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("params=110M", 110_000_000),
        ("params=1.5b", 1_500_000_000),
        ("size=200MB", 200_000_000),
        ("size=200MiB", 200 << 20),
        ("ram=2gib@ctx9", 2 << 30),
    ],
)
def test_units_mean_what_they_say(text: str, value: int) -> None:
    (limit,) = Target.parse([text]).limits
    assert limit.value == value


@pytest.mark.parametrize(
    ("text", "met"),
    [
        *[
            ("params=777", True),
            ("params=776", False),
            ("params=77.7%", True),
            ("params=77.6%", False),
            ("size=1554B", True),
            ("size=1553B", False),
        ],
        *[
            ("ratio=0.27875", True),
            ("ratio=0.27876", False),
            ("ram=1694B@ctx10", True),
            ("ram=1693B@ctx10", False),
        ],
        *[
            ("ram=1834B@ctx10,kv=f32", True),
            ("ram=1833B@ctx10,kv=f32", False),
            ("params=777,size=1553", False),
            ("size=80%,params=80%", True),
        ],
    ],
)
def test_every_budget_must_hold_to_the_last_byte(text: str, met: bool) -> None:
    assert Target.parse([text]).met(CUT, WHOLE) == met


@pytest.mark.parametrize(
    ("text", "message"),
    [
        *[
            ("", "none of params"),
            ("parms=80%", "did you mean params"),
            ("params=", "no amount"),
            ("params=-5M", "no amount"),
            ("params=nan", "no amount"),
        ],
        *[
            ("params=110MB", "unit 'MB'"),
            ("size=2TB", "unit 'TB'"),
            ("ratio=2M", "unit 'M'"),
            ("ratio=1", "below 1"),
            ("ratio=0", "below 1"),
        ],
        *[
            ("params=100%", "below 1"),
            ("params=0.8", "80%"),
            ("ram=300MB", "needs a context"),
            ("ram=300MB@ctx0", "needs a context"),
        ],
        *[
            ("size=300MB@ctx2048", "takes no context"),
            ("kv=f32", "needs a budget"),
            ("size=1MB,kv=f32", "kv="),
            ("ram=1MB@ctx1,kv=f23", "did you mean f32"),
        ],
        ("ram=1MB@ctx1,kv=f32,kv=f16", "once"),
    ],
)
def test_what_is_wrong_is_said(text: str, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        Target.parse([text])


@given(st.lists(budgets, min_size=1, max_size=4), footprints)
def test_the_nearest_target_is_met_and_only_what_failed_moves(texts: list[str], cut: Footprint) -> None:
    whole = Footprint(2 * 10**9, 10**9, 4 * 10**10, 10**7)
    target = Target.parse(texts)
    moved = target.nearest(cut, whole)
    assert moved.met(cut, whole)
    for before, after in zip(target.limits, moved.limits, strict=True):
        assert after == before or not Target((before,), target.kv_type).met(cut, whole)


def test_the_nearest_target_keeps_the_unit() -> None:
    assert (
        str(Target.parse(["params=50%,size=1kB,ratio=0.5,ram=9MB@ctx4"]).nearest(CUT, WHOLE))
        == "params=77.7%,size=1.554kB,ratio=0.2787,ram=9MB@ctx4"
    )
    assert Target.parse(["size=1KiB"]).nearest(CUT, WHOLE).limits == (Limit("size", Decimal("1.518"), "KiB"),)


def test_the_longest_cache_counts() -> None:
    assert Target.parse(["ram=1MB@ctx100,ram=2MB@ctx300,kv=f32"]).cache_bytes(7) == 7 * 4 * 300
    assert Target.parse(["params=80%"]).cache_bytes(7) == 0


def test_a_target_that_is_met_already_is_refused() -> None:
    text = r"^the model meets params=1k as it is \(1,000 parameters\): there is nothing to cut$"
    with pytest.raises(UsageError, match=text):
        refuse_if_met(Target.parse(["params=1k"]), WHOLE)
    text = r"meets size=2kB as it is \(1,000 parameters, 2,000 bytes\): there is nothing to drop$"
    with pytest.raises(UsageError, match=text):
        refuse_if_met(Target.parse(["size=2kB"]), WHOLE, verb="drop", with_bytes=True)


@pytest.mark.parametrize(
    "text", ["params=999", "size=1999B", "params=1k,size=1999B", "ratio=0.01", "size=99%"]
)
def test_a_target_that_is_not_met_yet_is_not_refused(text: str) -> None:
    target = Target.parse([text])
    refuse_if_met(target, WHOLE)
    assert not target.met(WHOLE, WHOLE)
