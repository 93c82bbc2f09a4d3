"""`secateur device` and `secateur advise` as a user meets them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from tests.conftest import Maker

from secateur.cli.main import app
from secateur.device.bandwidth import MeasuredRates
from secateur.device.probe import Machine
from secateur.device.profile import Rates, load_profile, profile_names

Run = Callable[..., tuple[int, str, str]]
RATES = Rates(
    threads=1,
    layer=2e-5,
    weights={"f16": 8e9, "q8_0": 5e9},
    cache=4e9,
    base=6e7,
    copied=[],
    spread=0.02,
    runtime="llama.cpp",
    taken="2026-01-01",
)


@pytest.fixture
def secateur(secateur: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """The command with nothing remembered of this machine, on a wide screen."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    return secateur


@pytest.fixture
def _measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose measurements take no time."""
    machine = Machine("Test CPU", 4, 3, 2e9, ("avx2",), 8 * 10**9, 4 * 10**9, False, None)
    monkeypatch.setattr("secateur.pipeline.advise.local_device.probe", lambda: machine)
    monkeypatch.setattr("secateur.pipeline.advise.advise.probe", lambda: machine)
    monkeypatch.setattr(
        "secateur.pipeline.advise.local_device.measure_machine",
        lambda threads, memory: MeasuredRates(threads, 1e10, 8e9, 1e11, "float32"),
    )
    monkeypatch.setattr(
        "secateur.pipeline.advise.local_device.clock_machine",
        lambda threads, progress: RATES.model_copy(update={"threads": threads}),
    )


def _json(result: tuple[int, str, str]) -> dict[str, Any]:
    code, out, err = result
    assert code == 0, err
    body: dict[str, Any] = json.loads(out)
    return body


# Every device, and every goal on one of each kind: a board, a phone, a card, and what is too small for all.
@pytest.mark.parametrize(
    ("device", "goal"),
    [
        *((device, "balanced") for device in profile_names()),
        *(
            (device, goal)
            for device in ("pi5", "phone-midrange", "rtx4090", "cortex-m7")
            for goal in ("speed", "size")
        ),
    ],
)
def test_every_advised_command_exists_as_written(secateur: Run, tiny: Maker, device: str, goal: str) -> None:
    model = tiny("llama", num_hidden_layers=20, vocab_size=512)
    steps = _json(secateur("advise", model, "--device", device, "--ctx", 16, "--goal", goal, "--json"))[
        "steps"
    ]
    assert steps or device == "cortex-m7"
    command = typer.main.get_command(app)
    for step in steps:
        program, verb, *arguments = step["command"]
        assert program == "secateur"
        context = command.make_context("secateur", [verb, *arguments], resilient_parsing=False)
        found: Any = command
        inner = found.get_command(context, verb)
        assert inner is not None, verb
        inner.make_context(verb, list(arguments), parent=context)


def test_advice_is_printed_with_its_reasons(secateur: Run, tiny: Maker) -> None:
    code, out, _ = secateur("advise", tiny("llama"), "--device", "pi5", "--ram", "2G", "--ctx", 128)
    assert code == 0
    for part in (
        "2 GB of memory, 128 tokens of context",
        "take ",
        "unstructured",
        "runtime-adaptive",
        "secateur export",
        "published decode speeds",
    ):
        assert part in out
    assert out.count("\n") < len(
        secateur("advise", tiny("llama"), "--device", "pi5", "--all")[1].splitlines()
    )


def test_nothing_fits_is_exit_code_3(secateur: Run, tiny: Maker) -> None:
    code, out, _ = secateur("advise", tiny("llama"), "--device", "pi5", "--ram", "1M")
    assert code == 3
    assert "nothing fits; what would:" in out
    code, out, _ = secateur("advise", tiny("llama"), "--device", "pi5", "--ram", "1M", "--json")
    assert (code, json.loads(out)["fits"], json.loads(out)["best"]) == (3, False, None)


@pytest.mark.usefixtures("_measured")
def test_this_machine_is_measured_once(
    secateur: Run, tiny: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = _json(secateur("device", "-o", tmp_path / "my.toml", "--json"))
    assert body["profile"]["rates"]["threads"] == 3
    assert load_profile(str(tmp_path / "my.toml")).model_dump(exclude_none=True) == body["profile"]
    monkeypatch.setattr(
        "secateur.pipeline.advise.local_device.clock_machine",
        lambda threads, progress: pytest.fail("measured twice"),
    )
    found = _json(secateur("advise", tiny("llama"), "--json"))
    assert (found["ram"], found["assumed"]) == (4 * 10**9, True)
    assert "measured on it" in found["basis"]
    assert "3 threads" in found["basis"]


@pytest.mark.usefixtures("_measured")
def test_a_busy_machine_is_told(secateur: Run, monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_another_machine_forgets(secateur: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from secateur.pipeline.advise.local_device import remembered

    _json(secateur("device", "--json"))
    assert remembered()
    monkeypatch.setattr(
        "secateur.pipeline.advise.local_device.probe",
        lambda: Machine("Other CPU", 4, 3, 2e9, ("avx2",), 8, 4, False, None),
    )
    assert remembered() is None


@pytest.mark.usefixtures("_measured")
def test_without_llama_cpp_nothing_is_remembered(secateur: Run) -> None:
    from secateur.pipeline.advise.local_device import remembered

    code, out, _ = secateur("device", "--no-decode")
    assert code == 0
    assert "decode" not in out
    assert remembered() is None


def test_profiles_are_listed_and_shown(secateur: Run) -> None:
    assert set(_json(secateur("device", "--list", "--json"))) == set(profile_names())
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
        (["advise", "MODEL", "--device", "raspberry"], "unknown --device 'raspberry'"),
        (["advise", "MODEL", "--goal", "fast"], "known: balanced, speed, accuracy, size"),
        (["advise", "MODEL", "--ram", "much"], "write 2G, 500MB or 1GiB"),
        (["advise", "MODEL", "--ctx", "999999"], "has a context of 1 to 256 tokens"),
        (["advise", "nothing"], "nothing"),
    ],
)
def test_a_mistake_is_one_line(
    secateur: Run,
    tiny: Maker,
    tmp_path: Path,
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = secateur(*(str(tiny("llama")) if one == "MODEL" else one for one in arguments))
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
    assert not list(tmp_path.glob("my*"))
