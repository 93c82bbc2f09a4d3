"""What the classes of configs say, without their classes."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import Maker
from tests.model.test_rotary import SCALED, scaled_config
from tests.tiny_models import FAMILIES

from secateur.model import config_defaults as module
from secateur.model.config_defaults import completed
from secateur.model.handle import open_model
from secateur.model.rotary import frequencies, rotary_kind, sight, turns
from secateur.model.transformers_model import transformers_config
from secateur_runtime.errors import OutputError

Asking = Callable[[dict[str, Any]], Any]
CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "rope_theta": 5e5,
}


@pytest.fixture(autouse=True)
def lean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the class be none that is imported already."""
    monkeypatch.setattr(module, "_COSTLY", "none.such")


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Asking:
    """Complete a config with the answer of the other process, given in this one."""

    def run(*_: Any, input: str, **__: Any) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(input))
        module._answer()
        return subprocess.CompletedProcess([], 0, capsys.readouterr().out)

    monkeypatch.setattr(subprocess, "run", run)
    return lambda config: completed(config, tmp_path)


def _plain(config: Any) -> dict[str, Any]:
    """Return all that a config holds, in the words of JSON."""
    found: dict[str, Any] = json.loads(json.dumps(vars(config), default=lambda _: None))
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_it_says_what_the_class_says(family: str, tiny: Maker, answered: Asking) -> None:
    config = open_model(str(tiny(family))).source.config
    # What a class fills in by itself is left to it.
    config = {
        key: value
        for key, value in config.items()
        if key not in ("layer_types", "no_rope_layers", "hidden_act", "hidden_activation", "rms_norm_eps")
    }
    found, theirs = answered(config), transformers_config(config)
    assert type(found) is not type(theirs)
    assert _plain(found) == _plain(theirs)
    for index in range(config["num_hidden_layers"]):
        kind = rotary_kind(theirs, index)
        assert (turns(found, index), sight(found, index), rotary_kind(found, index)) == (
            turns(theirs, index),
            sight(theirs, index),
            kind,
        )
        assert torch.equal(frequencies(found, kind)(9)[0], frequencies(theirs, kind)(9)[0])


@pytest.mark.parametrize("name", SCALED)
def test_every_rotary_embedding_is_that_of_the_class(name: str, answered: Asking) -> None:
    config = scaled_config({"rope_type": name, **SCALED[name]}, "phi3" if name == "longrope" else "llama")
    found, theirs = frequencies(answered(config)), frequencies(transformers_config(config))
    for length in (1, 65, 300):
        assert torch.equal(found(length)[0], theirs(length)[0])
        assert found(length)[1] == theirs(length)[1]


def test_another_process_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = completed(CONFIG, tmp_path / "new")
    assert (first.rms_norm_eps, first.head_dim, first.rope_parameters["rope_theta"]) == (1e-6, 16, 5e5)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("asked again"))
    assert _plain(completed(dict(reversed(CONFIG.items())), tmp_path / "new")) == _plain(first)
    with pytest.raises(BaseException, match="asked again"):
        completed({**CONFIG, "rope_theta": 1e4}, tmp_path / "new")


@pytest.mark.parametrize("body", ["", "{", "[]"])
def test_what_is_damaged_is_made_again(body: str, tmp_path: Path, answered: Asking) -> None:
    expected = _plain(answered(CONFIG))
    (path,) = tmp_path.iterdir()
    path.write_text(body)
    assert _plain(answered(CONFIG)) == expected
    assert json.loads(path.read_text()) == expected


def test_what_the_class_refuses_is_refused_as_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 1, ""))
    wrong = {**CONFIG, "rms_norm_eps": "small"}
    with pytest.raises(Exception, match="rms_norm_eps"):
        completed(wrong, tmp_path)
    assert not list(tmp_path.iterdir())


def test_where_nothing_can_be_written(tmp_path: Path, answered: Asking) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        completed(CONFIG, tmp_path / "file")
