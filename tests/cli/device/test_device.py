"""`secateur device` as a user meets it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.command import Secateur, json_of
from tests.cli.device.conftest import RATES
from tests.conftest import Maker

from secateur.device.probe import Machine
from secateur.device.profile import load_profile, profile_names

pytestmark = pytest.mark.usefixtures("_nothing_remembered")


@pytest.mark.usefixtures("_measured")
def test_this_machine_is_measured_once(
    secateur: Secateur, tiny: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = json_of(secateur("device", "-o", tmp_path / "my.toml", "--json"))
    assert body["profile"]["rates"]["threads"] == 3
    assert load_profile(str(tmp_path / "my.toml")).model_dump(exclude_none=True) == body["profile"]
    monkeypatch.setattr(
        "secateur.pipeline.advise.local_device.clock_machine",
        lambda threads, progress: pytest.fail("measured twice"),
    )
    found = json_of(secateur("advise", tiny("llama"), "--json"))
    assert (found["ram"], found["assumed"]) == (4 * 10**9, True)
    assert "measured on it" in found["basis"]
    assert "3 threads" in found["basis"]


@pytest.mark.usefixtures("_measured")
def test_a_busy_machine_is_told(secateur: Secateur, monkeypatch: pytest.MonkeyPatch) -> None:
    assert secateur("device")[2] == ""
    monkeypatch.setattr(
        "secateur.pipeline.advise.local_device.clock_machine",
        lambda threads, progress: RATES.model_copy(update={"spread": 0.8}),
    )
    code, _, err = secateur("device")
    assert code == 0
    assert (
        err
        == "warning: the middle run was 80% slower than the fastest: measure again when the machine is idle\n"
    )


@pytest.mark.usefixtures("_measured")
def test_another_machine_forgets(secateur: Secateur, monkeypatch: pytest.MonkeyPatch) -> None:
    from secateur.pipeline.advise.local_device import remembered

    json_of(secateur("device", "--json"))
    assert remembered()
    monkeypatch.setattr(
        "secateur.pipeline.advise.local_device.probe",
        lambda: Machine("Other CPU", 4, 3, 2e9, ("avx2",), 8, 4, False, None),
    )
    assert remembered() is None


@pytest.mark.usefixtures("_measured")
def test_without_llama_cpp_nothing_is_remembered(secateur: Secateur) -> None:
    from secateur.pipeline.advise.local_device import remembered

    code, out, _ = secateur("device", "--no-decode")
    assert code == 0
    assert "decode" not in out
    assert remembered() is None


def test_profiles_are_listed_and_shown(secateur: Secateur) -> None:
    assert set(json_of(secateur("device", "--list", "--json"))) == set(profile_names())
    code, out, _ = secateur("device", "--list")
    assert (code, out.count("\n")) == (0, 1 + len(profile_names()))
    code, out, _ = secateur("device", "pi5")
    assert code == 0
    assert "not confirmed" in out
    assert "https://github.com/ggml-org/llama.cpp/issues/26484" in out


@pytest.mark.usefixtures("_measured")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["device", "pi6"], "did you mean pi5"),
        (["device", "pi5", "--threads", "2"], "are for measuring this machine"),
        (["device", "--threads", "99"], "lets us use 4 cores"),
        (["device", "-o", "my.json"], "does not end in .toml"),
        (["device", "none.toml"], "cannot read the profile none.toml"),
    ],
)
def test_a_mistake_is_one_line(
    secateur: Secateur, tmp_path: Path, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = secateur(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
    assert not list(tmp_path.glob("my*"))
