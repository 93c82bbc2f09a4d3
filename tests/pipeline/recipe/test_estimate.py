"""Sizes, memory and time of a recipe are estimated before it runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from tests.conftest import Maker

import secateur
from secateur.core.graph import Graph
from secateur.model.handle import open_model
from secateur.pipeline.recipe.estimate import Forecast, forecast
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
    def test_they_are_sound_and_can_be_estimated(self, smollm2: str, tmp_path: Path, path: Path) -> None:
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


def _forecast(tiny: Maker, tmp_path: Path, *stages: object) -> tuple[Graph, list[Forecast]]:
    """Return the graph of a tiny model, and what the stages of a recipe on it will take."""
    folder = str(tiny("llama", num_hidden_layers=6))
    body = {"model": folder, "calibration": {"samples": 4, "window": 32}, "stages": list(stages)}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(body))
    found = forecast(read_recipe(tmp_path / "recipe.yaml"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    return open_model(folder).graph, found


def test_sizes_are_counted_from_the_shapes(tiny: Maker, tmp_path: Path) -> None:
    graph, found = _forecast(
        tiny,
        tmp_path,
        {"prune": {"sparsity": 0.5}},
        {"prune": {"method": "depth", "drop_layers": 3}},
        {"quantize": {"bits": 4, "group": 32}},
    )
    inside = sum(linear.out_features * linear.in_features for linear in graph.linears)
    outside = graph.parameters - inside
    # Zeros are stored; half of six blocks go; four bits and a scale of 16 bits for 32 weights.
    assert [row.bytes for row in found] == pytest.approx(
        [2 * (inside + outside), 2 * (inside / 2 + outside), inside / 2 * 4.5 / 8 + 2 * outside], rel=1e-6
    )


@pytest.mark.parametrize("target", ["params=80%", "ratio=0.3"])
def test_a_target_is_the_size_that_it_asks_for(tiny: Maker, tmp_path: Path, target: str) -> None:
    graph, (row,) = _forecast(tiny, tmp_path, {"prune": {"target": target}})
    inside = sum(linear.out_features * linear.in_features for linear in graph.linears)
    left = {"params=80%": 0.8 * graph.parameters, "ratio=0.3": graph.parameters - 0.3 * inside}[target]
    assert row.bytes == pytest.approx(2 * left, rel=1e-5)


def test_more_text_takes_more_time_and_memory(tiny: Maker, tmp_path: Path) -> None:
    few, many = (
        _forecast(tiny, tmp_path, {"prune": {"sparsity": 0.5, "calibration": {"samples": samples}}})[1][0]
        for samples in (8, 200000)
    )
    assert many.memory > few.memory
    assert many.seconds > few.seconds
    assert not few.cached
