"""Files that a released version may have written: frozen here word for word, and still read.

`docs/compatibility.md` promises it. A text here never changes; a new version of a format adds one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.ladders import EXAMPLE

from secateur.core.execution import CalibrationText, Execution
from secateur.core.plan import Plan
from secateur.model.formats.sparse_folder import put_together
from secateur.pipeline.recipe.schema import Gate, read_recipe
from secateur.present.comparison_folder import ComparisonRow, read_cells, read_job
from secateur_runtime.errors import SecateurError
from secateur_runtime.kernels.quantized import Grid
from secateur_runtime.ladder_file import parse_ladder
from secateur_runtime.record import Record

PLAN_1 = """{
 "drop": ["7.ffn"],
 "keep": {"3.ffn": [0, 2]},
 "made_by": {"calibration": "c4.jsonl", "calibration_digest": "sha256:2", "criterion": "wanda",
  "repair": "lsq+seam", "samples": "64", "scope": "tensor", "seed": "3", "window": "512"},
 "model": "sha256:1",
 "sparsity": {},
 "version": 1
}
"""
PLAN_2 = """{
 "drop": ["7.ffn"],
 "execution": {
  "calibration": {"digest": "sha256:2", "samples": 64, "text": "c4.jsonl", "window": 512},
  "criterion": "",
  "dtype": "auto",
  "gap_repair": "seam",
  "rotation": "",
  "scope": "tensor",
  "seed": 3,
  "unit_repair": "lsq",
  "weight_repair": "none"
 },
 "keep": {"3.ffn": [0, 2]},
 "made_by": {"unit_criterion": "minitron"},
 "model": "sha256:1",
 "sparsity": {},
 "version": 2
}
"""
LADDER_1 = """{"costs": [
{"1.attn":2.06,"1.ffn":2.2,"1.ffn:2":2.05},
{"1.attn":2.11}],
"made_by": {"text":"by hand"},
"model": "sha256:0000000000000000000000000000000000000000000000000000000000000000",
"order": {
"0.ffn": [3,1,0,2],
"0.kv": [1,0],
"1.ffn": [0,1,2,3],
"1.kv": [0,1],
"2.ffn": [2,3,0,1],
"2.kv": [0,1]},
"rungs": [
{"flops":860,"kv_values":48,"loss":2.05,"unit":"1.ffn:2","weight_bytes":960},
{"flops":800,"kv_values":32,"loss":2.11,"unit":"1.attn","weight_bytes":900},
{"flops":760,"kv_values":32,"loss":2.3,"unit":"1.ffn","weight_bytes":860},
{"flops":730,"kv_values":24,"loss":2.9,"unit":"0.kv:1","weight_bytes":830}],
"version": 1,
"whole": {"flops":900,"kv_values":48,"loss":2.0,"unit":"","weight_bytes":1000}}
"""
RECORD = """{"machine": "x86_64", "model": "sha256:0", "name": "perplexity", "plan": "sha256:1",
"protocol": "by hand", "seed": 0, "software": {"secateur": "0.1.0"}, "standard_error": null,
"unit": "", "value": 28.0}"""
COMPARISON_1 = """{"digest": "sha256:0", "name": "small", "parameters": 100000000, "protocols": {
"quality": {"compute": "float32", "count": 4, "digest": "sha256:3", "origin": "wiki.raw", "text": "wiki.raw",
"window": 1024}}, "ref": "org/small",
"rows": [{"kind": "dense", "method": "dense", "target": ""},
{"kind": "unstructured", "method": "wanda", "target": "ratio=0.2"}],
"secateur": "0.1.0", "version": 1}"""
PART = '{"notes": [], "records": [%s], "removed": [[0.0, 0.5]], "source": "sha256:0", "weights": ""}'
RECIPE = """model: org/small
seed: 3
calibration: {text: c4.jsonl, samples: 8}
stages:
  - prune: {method: width, ratio: 0.2}
  - export: {type: sparse-bf16}
  - gate: {size: 90MB}
"""


@pytest.mark.parametrize("text", [PLAN_1, PLAN_2])
def test_plans_of_both_versions_say_how_they_are_carried_out(text: str) -> None:
    plan = Plan.from_json(text)
    assert plan.keep == {"3.ffn": (0, 2)}
    assert plan.drop == ("7.ffn",)
    assert plan.execution == Execution(
        scope="tensor",
        unit_repair="lsq",
        gap_repair="seam",
        calibration=CalibrationText(text="c4.jsonl", samples=64, window=512, digest="sha256:2"),
        seed=3,
    )


def test_a_new_plan_has_version_2() -> None:
    assert json.loads(Plan(model="sha256:1").to_json())["version"] == 2


def test_a_ladder_of_version_1() -> None:
    assert parse_ladder(LADDER_1) == EXAMPLE


def test_a_record() -> None:
    record = Record.from_dict(json.loads(RECORD))
    assert (record.name, record.value, record.plan) == ("perplexity", 28.0, "sha256:1")


def test_a_comparison_of_version_1(tmp_path: Path) -> None:
    (tmp_path / "compare.json").write_text(COMPARISON_1)
    job = read_job(tmp_path)
    assert job.rows[1] == ComparisonRow("wanda", "ratio=0.2", "unstructured")
    place = tmp_path / "cells" / "wanda_at_ratio=0.2-c5c07d"
    place.mkdir(parents=True)
    (place / "quality.json").write_text(PART % RECORD)
    assert read_cells(tmp_path, job)[1].value("perplexity") == 28.0


def test_a_sparse_weight_of_version_1() -> None:
    parts = {
        "w_mask": torch.tensor([[0b101] + [0] * 7, [0b010] + [0] * 7], dtype=torch.uint8),
        "w_count": torch.tensor([2, 1], dtype=torch.int32),
        "w_values": torch.tensor([1.0, -2.0, 3.0], dtype=torch.bfloat16),
    }
    assert put_together("w", (2, 3), None, parts).dense().tolist() == [[1.0, 0.0, -2.0], [0.0, 3.0, 0.0]]


def test_a_sparse_weight_of_version_1_on_a_grid() -> None:
    mask = [[0b11] + [0] * 7]
    parts = {
        "w_mask": torch.tensor(mask, dtype=torch.uint8),
        "w_count": torch.tensor([2], dtype=torch.int32),
        "w_values": torch.tensor([128 + 5, 128 - 7], dtype=torch.uint8),
        "w_scale": torch.tensor([[0.5]], dtype=torch.float16),
    }
    dense = put_together("w", (1, 64), Grid.parse("int8-g64"), parts).dense()
    assert dense[0, :3].tolist() == [2.5, -3.5, 0.0]


def test_a_recipe(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    recipe = read_recipe(path)
    assert (recipe.model, recipe.seed) == ("org/small", 3)
    assert [stage.kind for stage in recipe.stages] == ["prune", "export", "gate"]
    assert recipe.stages[0].calibration.samples == 8
    assert recipe.stages[2].options == Gate(size="90MB")


def _comparison(folder: Path) -> None:
    (folder / "compare.json").write_text(COMPARISON_1.replace('"version": 1', '"version": 2'))
    read_job(folder)


def _recipe(folder: Path) -> None:
    (folder / "recipe.yaml").write_text("version: 2\n" + RECIPE)
    read_recipe(folder / "recipe.yaml")


@pytest.mark.parametrize(
    "read",
    [
        lambda _: Plan.from_json(PLAN_2.replace('"version": 2', '"version": 3')),
        lambda _: parse_ladder(LADDER_1.replace('"version": 1', '"version": 2')),
        lambda _: Record.from_dict({**json.loads(RECORD), "version": 2}),
        _comparison,
        _recipe,
    ],
    ids=["plan", "ladder", "record", "comparison", "recipe"],
)
def test_an_unknown_version_is_one_line_and_exit_code_2(
    tmp_path: Path, read: Callable[[Path], object]
) -> None:
    with pytest.raises(SecateurError) as error:
        read(tmp_path)
    assert "\n" not in str(error.value)
    assert int(error.value.exit_code) == 2
