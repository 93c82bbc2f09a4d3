"""Figures that a stage gives, and gates that refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Maker
from tests.vocabularies import save_with_fewer_tokens

from secateur.calibrate.calibration import Calibration
from secateur.core.progress import Silent
from secateur.pipeline.evaluate.evaluate import evaluate
from secateur.pipeline.recipe.runner import StageResult, row
from secateur.pipeline.recipe.schema import Eval, Gate, Options, Stage
from secateur.pipeline.recipe.stages import Place, perform
from secateur_runtime.errors import UncheckedError, VerificationError


@pytest.fixture(scope="module")
def parent(tiny: Maker) -> str:
    return str(tiny("llama"))


@pytest.fixture(scope="module")
def model(parent: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_with_fewer_tokens(Path(parent), tmp_path_factory.mktemp("fewer"), 20))


class TestStages:
    def made(self, options: Options, model: str, parent: str, figures: dict[str, Any]) -> dict[str, Any]:
        place = Place(model, parent, parent, Path("nowhere"), 0, figures, None)
        return {**figures, **perform(Stage("stage", options, Calibration()), place, Silent()).figures}

    def test_figures_that_cannot_be_are_left_out(self, model: str, parent: str) -> None:
        how = Eval(window=50, count=3)
        found = self.made(how, model, parent, {"kl": 0.1, "agreement": 0.9})
        alone, dense = (
            evaluate(model, window=50, count=3, reference=parent),
            evaluate(parent, window=50, count=3),
        )
        assert (found["perplexity"], found["dense_perplexity"]) == (
            alone.perplexity,
            alone.reference_perplexity,
        )
        assert found["perplexity_ratio"] == pytest.approx(alone.perplexity / dense.perplexity, rel=1e-5)
        shown = row(StageResult("eval", None, found, 0.0, 0.0, False))
        assert shown["per_token_of"] == parent
        assert shown["bits_per_byte"] == alone.bits_per_byte
        assert not {"kl", "agreement"} & set(shown)
        after = row(StageResult("eval", None, self.made(how, parent, parent, found), 0.0, 0.0, False))
        assert not {"per_token_of", "bits_per_byte"} & set(after)
        assert after["kl"] == pytest.approx(0, abs=1e-9)
        assert after["perplexity_ratio"] == 1

    def test_a_gate_on_kl_is_one_line_though_an_eval_before_gave_it(self, model: str, parent: str) -> None:
        figures = self.made(Eval(window=50, count=2), model, parent, {"kl": 0.1})
        with pytest.raises(
            UncheckedError,
            match=(
                r"^the gate asks for kl, and .* reads other tokens than .*: ask for perplexity_ratio, which"
                r" is per token of it$"
            ),
        ):
            self.made(Gate(kl=1.0), model, parent, figures)
        assert "allowed_perplexity_ratio" in self.made(Gate(perplexity_ratio=1000.0), model, parent, figures)
        with pytest.raises(VerificationError, match="perplexity_ratio is"):
            self.made(Gate(perplexity_ratio=0.001), model, parent, figures)
