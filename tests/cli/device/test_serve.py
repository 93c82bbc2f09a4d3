"""`secateur serve` as a user types it."""

from __future__ import annotations

import math
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cli.command import Secateur
from tests.conftest import Maker
from tests.ladders import ladder_for
from tests.told import tell

from secateur.cli.device.serve import ElasticOptions, KeyOptions, MemoryOptions, ServerOptions
from secateur.model.handle import open_model
from secateur_runtime.errors import UsageError
from secateur_runtime.server.engine.memory_controller import ControllerSettings


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--backend", "elastik"), "did you mean elastic"),
        (("--host", "0.0.0.0"), "--no-key"),
        (("--memory-budget", "some"), "--memory-budget 'some' is no amount of memory"),
        (("--api-key-file", "none.txt"), "cannot read the API key"),
        (("--policy", "greedi"), "did you mean greedy"),
        (("--kv", "f8"), "f32, bf16, f16"),
        (("--ladder", "none.json"), "none.json"),
        (("--type", "int8"), "--type int8 is for --backend native"),
        (("--backend", "native", "--type", "int9"), "did you mean int8"),
        (("--backend", "native", "--kv", "bf16"), "f32, f16"),
    ],
)
def test_mistakes_are_one_line(
    secateur: Secateur, tiny: Maker, tmp_path: Path, options: tuple[str, ...], says: str
) -> None:
    pytest.importorskip("fastapi", reason="pip install 'secateur[serve]'")
    model = tiny("llama")
    ladder = tmp_path / "ladder.json"
    opened = open_model(str(model))
    ladder_for(opened.graph, opened.digest, ("1.attn",)).save(ladder)
    code, out, err = secateur("serve", model, "--port", 0, "--cache", tmp_path, "--ladder", ladder, *options)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert says in err


def test_without_its_packages(secateur: Secateur, tiny: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, _, err = secateur("serve", tiny("llama"))
    assert (code, err.count("\n")) == (2, 1)
    assert "pip install 'secateur[serve]'" in err


def test_ladders_lie_in_the_cache_of_everything_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SECATEUR_CACHE", str(tmp_path))
    assert ElasticOptions().elasticity(folder=None, threads=1, kind="").folder == tmp_path
    assert ElasticOptions().elasticity(folder=Path("other"), threads=1, kind="").folder == Path("other")


def test_a_type_is_for_the_kernels() -> None:
    assert ServerOptions().weights() == ""
    assert ServerOptions(backend="native").weights() == "bf16"
    assert ServerOptions(backend="native", kind="int8").weights() == "int8"


def test_the_key_is_that_of_the_file_or_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SECATEUR_API_KEY", raising=False)
    assert KeyOptions().key() == ""
    monkeypatch.setenv("SECATEUR_API_KEY", "from-environment")
    assert KeyOptions().key() == "from-environment"
    (tmp_path / "key").write_text(" from-file\n")
    assert KeyOptions(api_key_file=tmp_path / "key").key() == "from-file"
    for text in ("", "two words", "schlüssel"):
        (tmp_path / "key").write_text(text)
        with pytest.raises(UsageError, match="holds no API key"):
            KeyOptions(api_key_file=tmp_path / "key").key()


def test_memory_options_become_the_controller() -> None:
    given = MemoryOptions(memory_budget="900M", headroom=0.1, calm=5.0, max_loss=math.inf)
    assert given.budget() == 900 * 10**6
    assert given.controller(watch=False) == ControllerSettings(
        headroom=0.1, restore_delay=5.0, watch=False, most_loss=math.inf
    )
    assert MemoryOptions().budget() is None
    with pytest.raises(UsageError, match="--max-loss nan"):
        MemoryOptions(max_loss=math.nan).controller(watch=True)


def test_it_serves_until_it_is_interrupted(tiny: Maker, tmp_path: Path) -> None:
    httpx = pytest.importorskip("httpx")
    pytest.importorskip("fastapi", reason="pip install 'secateur[serve]'")
    opened = open_model(str(tiny("llama")))
    ladder_for(opened.graph, opened.digest, ("1.attn",)).save(tmp_path / "ladder.json")
    tell(opened, tmp_path)
    command = [
        sys.executable,
        "-m",
        "secateur",
        "serve",
        str(tiny("llama")),
        "--port",
        "0",
        "--cache",
        str(tmp_path),
        "--ladder",
        str(tmp_path / "ladder.json"),
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        found = re.search(r"at (http://127\.0\.0\.1:\d+)$", process.stderr.readline().strip())
        assert found
        body = {"model": tiny("llama").name, "prompt": "a", "max_tokens": 3}
        assert httpx.post(f"{found[1]}/v1/completions", json=body, timeout=30).status_code == 200
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert (process.returncode, rest) == (0, "")
