"""Profiles: those that come along are whole and say where each figure is from.

Any other file is one or is refused in one line.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secateur.device.profile import (
    Profile,
    load_profile,
    parse_profile,
    profile_names,
    to_toml,
    write_profile,
)
from secateur_runtime.errors import OutputError, UsageError

WANTED = (
    "pi4",
    "pi5",
    "phone-flagship",
    "phone-midrange",
    "orin-nano",
    "agx-orin",
    "n100",
    "laptop",
    "rtx4090",
    "h100",
    "cortex-m7",
)
scalars = st.one_of(
    st.text(max_size=8),
    st.booleans(),
    st.integers(-(2**60), 2**60),
    st.floats(allow_nan=False, allow_infinity=False),
)
keys = st.text(min_size=1, max_size=6)
tables = st.recursive(
    st.dictionaries(keys, scalars | st.lists(scalars, max_size=3), max_size=3),
    lambda inner: st.dictionaries(
        keys, scalars | inner | st.lists(inner, min_size=1, max_size=2), max_size=3
    ),
    max_leaves=8,
)


@pytest.mark.parametrize("name", WANTED)
def test_every_figure_says_where_it_is_from(name: str) -> None:
    profile = load_profile(name)
    sources = [
        profile.isa.source,
        *(one.source for one in profile.figures.values()),
        *(one.source for one in profile.published),
    ]
    assert all(source.startswith(("https://", "http://")) for source in sources)
    assert parse_profile(to_toml(profile.model_dump(exclude_none=True)), name) == profile


def test_no_profile_is_forgotten() -> None:
    assert set(profile_names()) == set(WANTED)


@settings(deadline=None)
@given(tables)
def test_toml_survives(values: dict[str, Any]) -> None:
    assert tomllib.loads(to_toml(values)) == values


def _changed(**changes: Any) -> str:
    values = load_profile("pi5").model_dump(exclude_none=True)
    for path, value in changes.items():
        place: Any = values
        *parents, last = path.split("__")
        for parent in parents:
            place = place[parent]
        if value is None:
            del place[last]
        else:
            place[last] = value
    return to_toml(values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = ", "is not TOML"),
        ("", "name: Field required"),
        (_changed(kind="toaster"), "kind: Input should be 'microcontroller'"),
        (_changed(figures__cores__value=-1.0), "figures.cores.value: Input should be greater than 0"),
        (_changed(figures__cores__value=float("inf")), "figures.cores.value"),
        (_changed(figures__cores__value="4"), "figures.cores.value: Input should be a valid number"),
        (_changed(figures__cores__source=None), "figures.cores.source: Field required"),
        (_changed(figures__memory=None), "figures.memory is missing"),
        (
            _changed(figures__memroy={"value": 1.0, "source": "", "confirmed": True}),
            "figure 'memroy' is not known (did you mean memory?)",
        ),
        (
            _changed(figures__bandwidth=None, figures__stream=None),
            "figures.bandwidth or figures.stream is missing",
        ),
        (_changed(processor="mcu"), "figures.flash is missing"),
        (_changed(colour="red"), "colour: Extra inputs are not permitted"),
    ],
)
def test_a_damaged_profile_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "my.toml").write_text(text)
    with pytest.raises(UsageError) as raised:
        load_profile(str(tmp_path / "my.toml"))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("ref", "message"),
    [("pi6", "did you mean pi5"), ("loacl", "did you mean local"), ("none.toml", "No such file")],
)
def test_an_unknown_device_is_one_line(ref: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_profile(ref)


def test_a_profile_is_written_whole_or_not(tmp_path: Path) -> None:
    profile: Profile = load_profile("pi5")
    write_profile(profile, tmp_path / "a" / "my.toml", overwrite=False)
    assert load_profile(str(tmp_path / "a" / "my.toml")) == profile
    with pytest.raises(OutputError, match="--overwrite"):
        write_profile(profile, tmp_path / "a" / "my.toml", overwrite=False)
    with pytest.raises(UsageError, match=r"does not end in \.toml"):
        write_profile(profile, tmp_path / "my.json", overwrite=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        write_profile(profile, tmp_path / "file" / "my.toml", overwrite=False)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "file", "my.toml"]
