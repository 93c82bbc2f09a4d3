"""`secateur advise` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from tests.cli.command import Secateur, json_of
from tests.conftest import Maker

from secateur.cli.main import app
from secateur.device.profile import profile_names

pytestmark = pytest.mark.usefixtures("_nothing_remembered")


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
def test_every_advised_command_exists_as_written(
    secateur: Secateur, tiny: Maker, device: str, goal: str
) -> None:
    model = tiny("llama", num_hidden_layers=20, vocab_size=512)
    steps = json_of(secateur("advise", model, "--device", device, "--ctx", 16, "--goal", goal, "--json"))[
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


def test_advice_is_printed_with_its_reasons(secateur: Secateur, tiny: Maker) -> None:
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


def test_nothing_fits_is_exit_code_3(secateur: Secateur, tiny: Maker) -> None:
    code, out, _ = secateur("advise", tiny("llama"), "--device", "pi5", "--ram", "1M")
    assert code == 3
    assert "nothing fits; what would:" in out
    code, out, _ = secateur("advise", tiny("llama"), "--device", "pi5", "--ram", "1M", "--json")
    assert (code, json.loads(out)["fits"], json.loads(out)["best"]) == (3, False, None)


@pytest.mark.usefixtures("_measured")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["advise", "MODEL", "--device", "raspberry"], "unknown --device 'raspberry'"),
        (["advise", "MODEL", "--goal", "fast"], "known: balanced, speed, accuracy, size"),
        (["advise", "MODEL", "--ram", "much"], "write 2G, 500MB or 1GiB"),
        (["advise", "MODEL", "--ctx", "999999"], "has a context of 1 to 256 tokens"),
        (["advise", "nothing"], "nothing"),
    ],
)
def test_a_mistake_is_one_line(
    secateur: Secateur,
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
