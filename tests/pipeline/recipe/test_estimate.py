"""Sizes, memory and time of a recipe are estimated before it runs."""

from __future__ import annotations

from pathlib import Path

import pytest

import secateur
from secateur.pipeline.recipe.estimate import forecast
from secateur.pipeline.recipe.schema import read_recipe

SHIPPED = sorted((Path(__file__).parents[3] / "recipes").glob("*.yaml"))


class TestShipped:
    def test_they_are_the_ones_that_are_promised(self) -> None:
        assert {path.stem for path in SHIPPED} == {
            "pi5-4bit",
            "phone",
            "jetson-2to4",
            "laptop-cpu",
            "fastest",
            "smallest",
        }

    @pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
    def test_they_are_sound_and_can_be_reckoned(self, smollm2: str, tmp_path: Path, path: Path) -> None:
        recipe = read_recipe(path)
        assert recipe.model == smollm2
        rows = forecast(recipe, tmp_path / "out")
        assert [row.kind for row in rows] == [stage.kind for stage in recipe.stages]
        assert all(
            1e7 < row.bytes < 6e8 and 1e8 < row.memory < 6e9 and row.seconds >= 0 and not row.cached
            for row in rows
        )
        assert not (tmp_path / "out").exists()

    @pytest.mark.slow
    @pytest.mark.timeout(3600)
    @pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
    def test_end_to_end_at_a_reduced_budget(self, smollm2: str, tmp_path: Path, path: Path) -> None:
        kinds = {stage.kind for stage in read_recipe(path).stages}
        reduced = [
            "calibration.samples=4",
            "calibration.window=256",
            "eval.count=1",
            "eval.window=512",
            "gate.perplexity_ratio=1000",
        ]
        reduced += ["recover.steps=2", "recover.calibration={samples: 8, window: 256}"]
        done = secateur.run(path, tmp_path / "out", changes=reduced)
        assert done.model is not None
        assert secateur.verify(str(done.model)).stock_difference < 1e-3
        assert (done.file is not None) == ("export" in kinds)
