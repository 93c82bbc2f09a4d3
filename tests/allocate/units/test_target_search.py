"""The least that must go for a target, over curves of every kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from secateur.allocate.units import SPREADS, Curve, SpreadContext, parameters_gone
from secateur.allocate.units.target_search import Cuts, meet
from secateur.core.footprint import Footprint
from secateur.core.target import Target
from secateur_runtime.errors import TargetError, UsageError


@st.composite
def curve(draw: st.DrawFn) -> Curve:
    size = draw(st.integers(2, 40))
    steps = draw(st.lists(st.floats(0, 1), min_size=size, max_size=size))
    errors = [0.0]
    for step in sorted(steps):
        errors.append(errors[-1] + step)
    return Curve(tuple(errors), draw(st.integers(1, 50)), tuple(sorted(steps)), draw(st.sampled_from([1, 2])))


curves = st.lists(curve(), min_size=1, max_size=5).map(
    lambda found: {str(index): one for index, one in enumerate(found)}
)
REST = 500


def _size(found: Mapping[str, Curve], cuts: Mapping[str, int]) -> Footprint:
    left = sum(one.size * one.price for one in found.values()) - parameters_gone(found, cuts)
    return Footprint(REST + left, left, 2 * (REST + left), 0)


def _meet(
    found: Mapping[str, Curve],
    target: Target,
    name: str,
    *,
    costly: bool = False,
    calls: list[float] | None = None,
) -> Cuts:
    most = parameters_gone(found, {key: one.cuts[-1] for key, one in found.items()})
    highest = 1.0 if name == "uniform" else most / sum(one.size * one.price for one in found.values())

    def spread(ratio: float) -> Cuts:
        if calls is not None:
            calls.append(ratio)
        return SPREADS[name].function(found, ratio, SpreadContext())

    return meet(
        target,
        found,
        spread,
        lambda cuts: _size(found, cuts),
        whole=_size(found, {}),
        highest=highest,
        costly=costly,
    )


@given(curves, st.integers(5, 95), st.sampled_from(["uniform", "knapsack", "zscore"]), st.booleans())
def test_a_target_in_reach_is_met_and_one_out_of_reach_names_one_that_is(
    found: dict[str, Curve], share: int, name: str, costly: bool
) -> None:
    assume(all(one.cuts for one in found.values()) and any(one.cuts[-1] for one in found.values()))
    target = Target.parse([f"params={share}%"])
    try:
        cuts = _meet(found, target, name, costly=costly)
    except TargetError as error:
        near = str(error).rpartition("the nearest is ")[2]
        cuts = _meet(found, target := Target.parse([near]), name, costly=costly)
    assert target.met(_size(found, cuts), _size(found, {}))
    assert all(cut in found[key].cuts for key, cut in cuts.items())


@given(curves, st.integers(5, 95))
def test_one_step_less_of_any_group_would_not_do(drawn: dict[str, Curve], share: int) -> None:
    found = {name: replace(one, align=1) for name, one in drawn.items()}
    target, whole = Target.parse([f"params={share}%"]), _size(found, {})
    try:
        cuts = _meet(found, target, "knapsack")
    except UsageError:
        return
    dearest = max(one.price for one in found.values())
    assert _size(found, cuts).parameters + dearest > whole.parameters * share / 100


def test_a_costly_spread_is_called_few_times() -> None:
    found = {
        str(index): Curve(tuple(map(float, range(101))), 10 + index, tuple(map(float, range(100))))
        for index in range(4)
    }
    calls: list[float] = []
    _meet(found, Target.parse(["params=60%"]), "knapsack", costly=True, calls=calls)
    assert len(calls) <= 3


def test_nothing_to_do_is_said() -> None:
    found = {"a": Curve((0.0, 1.0, 2.0), 1, (1.0, 1.0))}
    with pytest.raises(UsageError, match="as it is"):
        _meet(found, Target.parse(["params=600"]), "uniform")
