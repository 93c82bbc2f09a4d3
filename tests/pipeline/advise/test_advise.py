"""Advice: sizes that come true, options that fit, reasons that follow from the device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Maker

import secateur
from secateur.cli.main import app
from secateur.device.decode_model import PredictedSpeed
from secateur.device.profile import load_profile, write_profile
from secateur.pipeline.advise.advise import GOALS, Advice, RunOption, _storing, choose
from secateur.pipeline.advise.size_estimate import Reduction
from secateur.pipeline.export.formats import EXPORTERS
from secateur_runtime.errors import SecateurError


def _option(
    perplexity: float, speed: float, file: int, *, fits: bool = True, stored: str = "f16"
) -> RunOption:
    full = PredictedSpeed(speed, speed, speed)
    gguf = EXPORTERS["gguf"]
    assert gguf.advised
    return RunOption(
        cut=Reduction("dense", 0.0, {}, ()),
        type=stored,
        file=file,
        memory=file,
        start=full,
        full=full,
        perplexity=perplexity,
        measured=True,
        fits=fits,
        exporter=gguf,
        form=gguf.advised,
    )


EXACT, FOUR_BIT, CUT, BROKEN = (
    _option(1.0, 10, 200),
    _option(1.27, 20, 100),
    _option(1.7, 30, 80),
    _option(9.0, 90, 40),
)


@pytest.mark.parametrize(
    ("goal", "best"), [("accuracy", EXACT), ("balanced", FOUR_BIT), ("speed", CUT), ("size", CUT)]
)
def test_a_goal_decides(goal: str, best: RunOption) -> None:
    assert choose([BROKEN, CUT, FOUR_BIT, EXACT], goal) == best
    assert choose([_option(1.0, 99, 1, fits=False), BROKEN, CUT, FOUR_BIT, EXACT], goal) == best


@pytest.mark.parametrize("goal", GOALS)
def test_where_all_cost_too_much_the_most_accurate_is_taken(goal: str) -> None:
    assert choose([BROKEN, _option(5.0, 1, 99)], goal) == _option(5.0, 1, 99)
    assert choose([_option(1.0, 1, 1, fits=False)], goal) is None


def test_nearly_as_fast_is_enough() -> None:
    assert choose(
        [_option(1.27, 20, 100), _option(1.1, 18.5, 120), _option(1.0, 10, 200)], "balanced"
    ) == _option(1.1, 18.5, 120)


def _advise(
    model: Path, device: str, ram: str | None = None, context: int = 64, goal: str = "balanced"
) -> Advice:
    return secateur.advise(str(model), device=device, ram=ram, context=context, goal=goal)


def test_everything_listed_as_fitting_fits(tiny: Maker) -> None:
    found = _advise(tiny("llama"), "pi5", ram="62M")
    assert [one.fits for one in found.options] == [one.memory <= 62e6 for one in found.options]
    assert found.best
    assert found.best.fits
    assert not found.would


def test_what_would_fit_does(tiny: Maker) -> None:
    model = tiny("llama", max_position_embeddings=65536)
    found = _advise(model, "pi5", ram="70M", context=65536)
    assert found.best is None
    assert not found.steps
    text = " ".join(found.would)
    context = int(text.partition("--ctx ")[2].split(",")[0])
    least = text.partition("--ram ")[2].split(",")[0]
    assert _advise(model, "pi5", ram="70M", context=context).best
    assert _advise(model, "pi5", ram="70M", context=context + context // 50).best is None
    assert _advise(model, "pi5", ram=least, context=65536).best
    assert "another device: " in text


def test_a_microcontroller_holds_tiny_models_only(tiny: Maker) -> None:
    assert _advise(tiny("llama"), "cortex-m7").best
    large = _advise(tiny("llama", intermediate_size=8192), "cortex-m7")
    assert large.best is None
    assert any("the flash holds 2,097,152" in line for line in large.would)


def test_training_is_advised_after_the_cut_and_rounding_after_both(tiny: Maker) -> None:
    model = str(tiny("llama", num_hidden_layers=20, intermediate_size=1024, vocab_size=512))
    options: dict[str, Any] = {"device": "pi5", "ram": "2G", "context": 16, "goal": "size"}
    verbs = [step.command[0] for step in secateur.advise(model, **options).steps]
    assert verbs[:4] == ["prune", "recover", "quantize", "export"]


def test_a_type_that_cannot_hold_the_widths_is_not_advised(tiny: Maker) -> None:
    assert {one.type for one in _advise(tiny("llama", intermediate_size=100), "pi5").options} == {"f16"}
    assert {one.type for one in _advise(tiny("llama"), "pi5").options} == {"f16", "q8_0", "q5_0", "q4_0"}


def test_a_profile_file(tiny: Maker, tmp_path: Path) -> None:
    write_profile(load_profile("pi4"), tmp_path / "my.toml", overwrite=False)
    assert _advise(tiny("llama"), str(tmp_path / "my.toml")).options == _advise(tiny("llama"), "pi4").options


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"device": "pi55"}, "did you mean pi5"),
        ({"goal": "sped"}, "did you mean speed"),
        ({"ram": "2X"}, "is no amount of memory"),
        ({"ram": "80%"}, "is a share of what"),
        ({"ram": "0"}, "is no amount of memory"),
        ({"context": 0}, "1 to 256 tokens"),
        ({"context": 257}, "1 to 256 tokens"),
    ],
)
def test_a_mistake_is_one_line(tiny: Maker, given: dict[str, Any], message: str) -> None:
    with pytest.raises(SecateurError, match=message) as raised:
        secateur.advise(str(tiny("llama")), **{"device": "pi5", **given})
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("stored", ["q5_0", "q4_0"])
def test_the_commands_for_fewer_bits_are_taken(
    tiny: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: str
) -> None:
    pytest.importorskip("xllamacpp", reason="pip install 'secateur[llamacpp]'")
    pytest.importorskip("compressed_tensors", reason="pip install 'secateur[quantize]'")
    monkeypatch.chdir(tmp_path)
    src = str(tiny("llama"))
    quantize, export, _ = _storing(src, src, _option(1.27, 1, 1, stored=stored), "small")
    app([*quantize.command, "--samples", "4", "--calib-window", "32", "--quiet"], standalone_mode=False)
    app([*export.command, "--quiet"], standalone_mode=False)
    assert (tmp_path / f"small-{stored}.gguf").is_file()
