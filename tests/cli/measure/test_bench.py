"""`secateur bench` in torch, and options that would do nothing."""

from __future__ import annotations

import pytest
from tests.cli.command import Secateur, json_of
from tests.conftest import Maker

from secateur.cli.measure.bench import TimingOptions, _print_speeds
from secateur.pipeline.bench.bench import Benched, BenchSettings
from secateur.runtime.timed_turns import Spread

FEW = ["--prompt", "8", "--tokens", "2", "--repeat", "1"]


def test_a_model_and_a_baseline(secateur: Secateur, tiny: Maker) -> None:
    model, baseline = tiny("llama"), tiny("qwen2")
    body = json_of(secateur("bench", model, "--against", baseline, "--type", "BF16", *FEW, "--json"))
    assert [one["model"] for one in body["models"]] == [str(model), str(baseline)]
    assert body["settings"] == {
        "backend": "torch",
        "threads": 1,
        "prompt": 8,
        "tokens": 2,
        "repeat": 1,
        "kind": "bf16",
    }
    assert body["models"][0]["ratio"].keys() == {"prompt", "decode", "first"}
    assert body["models"][1]["ratio"] is None
    assert "torch bf16, 1 threads, 8 tokens of prompt" in body["records"][0]["protocol"]


def _spread(middle: float) -> Spread:
    return Spread(median=middle, low=middle - 1, high=middle + 1)


def test_a_table_of_two_models(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    speeds = {name: _spread(10) for name in ("prompt", "decode", "first")}
    ratio = {name: _spread(2) for name in speeds}
    ours = Benched("out/a", "", speeds, 300 * 10**6, 4000, ratio=ratio, stream=_spread(0.5))
    theirs = Benched("out/b", "", {name: _spread(5) for name in speeds}, 600 * 10**6, 8000)
    _print_speeds([ours, theirs], BenchSettings(repeat=3, threads=2))
    title, header, *rows = (line.rstrip() for line in capsys.readouterr().out.splitlines())
    assert title == "torch, 2 threads: median of 3 (lowest to highest)"
    assert header.split() == ["a", "b", "ratio"]
    assert [" ".join(row.split()) for row in rows] == [
        "prompt, tokens/s 10 (9 to 11) 5 (4 to 6) 2 (1 to 3)",
        "decode, tokens/s 10 (9 to 11) 5 (4 to 6) 2 (1 to 3)",
        "first token, s 10 (9 to 11) 5 (4 to 6) 2 (1 to 3)",
        "share of bandwidth 50%",
        "peak memory 300 MB 600 MB 0.5",
        "file 4 kB 8 kB 0.5",
    ]


def test_defaults_are_those_of_the_library() -> None:
    assert TimingOptions().settings() == BenchSettings()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--text", "builtin"], "add --beside with the whole model"),
        (["--backend", "torhc"], "did you mean torch"),
        (["--type", "q8_0"], "q8_0"),
    ],
)
def test_a_mistake_is_one_line(secateur: Secateur, tiny: Maker, options: list[str], message: str) -> None:
    code, out, error = secateur("bench", tiny("llama"), *FEW, *options)
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert message in error
