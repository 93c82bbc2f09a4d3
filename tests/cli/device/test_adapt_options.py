"""Options that the verbs of `adapt` share mean the same in each."""

from __future__ import annotations

from tests.cli.command import Secateur

from secateur.adapt.ranking.rank import Rank
from secateur.calibrate.calibration import Calibration
from secateur.cli.device.adapt import RankingOptions, RankingText
from secateur.cli.device.adapt_options import MeasurementText


def test_steps_are_priced_on_the_text_that_they_were_ranked_on() -> None:
    ranked, priced = RankingText(), MeasurementText()
    assert ranked.calibration() == priced.calibration() == Calibration(samples=16, window=512)
    assert ranked.probe == priced.probe == Rank().probe


def test_defaults_are_those_of_the_library() -> None:
    assert RankingOptions().rank(RankingText()) == Rank()


def test_values_reach_the_ranking() -> None:
    text = RankingText(calib="self", samples=3, calib_window=32, probe=2)
    options = RankingOptions(
        criterion="flap", widths=4, groups=True, context=8, floor=0.5, protect=["first=1"]
    )
    assert options.rank(text) == Rank(
        calibration=Calibration(text="self", samples=3, window=32),
        probe=2,
        criterion="flap",
        widths=4,
        groups=True,
        context=8,
        floor=0.5,
        protect=("first=1",),
    )


def test_every_verb_has_the_shared_tail(secateur: Secateur) -> None:
    for verb in ("rank", "price", "train", "simulate"):
        code, text, _ = secateur("adapt", verb, "--help")
        assert code == 0
        places = [text.index(f"--{name}") for name in ("output", "seed", "overwrite", "json", "quiet")]
        assert places == sorted(places), verb
