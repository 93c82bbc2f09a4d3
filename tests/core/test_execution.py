"""How a plan is carried out: what a plan of version 1 only said in its provenance is read into types."""

from __future__ import annotations

import json

import pytest

from secateur.core.execution import CalibrationText, Execution
from secateur.core.plan import Plan

TEXT = {"calibration": "builtin", "samples": "4", "window": "64", "calibration_digest": "sha256:0"}
READ = CalibrationText(text="builtin", samples=4, window=64, digest="sha256:0")
UNITS = {"0.ffn": [0, 1]}
WEIGHTS = {"w": "0.5"}


def version_1(**body: object) -> Plan:
    return Plan.from_json(json.dumps({"version": 1, "model": "sha256:1", **body}))


@pytest.mark.parametrize(
    ("body", "execution"),
    [
        ({}, Execution()),
        (
            {
                "sparsity": WEIGHTS,
                "made_by": {"criterion": "wanda", "repair": "none", "scope": "row", **TEXT},
            },
            Execution(criterion="wanda", calibration=READ),
        ),
        (
            {
                "sparsity": WEIGHTS,
                "made_by": {"criterion": "", "repair": "obs", "scope": "tensor", "seed": "7"},
            },
            Execution(weight_repair="obs", scope="tensor", seed=7),
        ),
        (
            {"keep": UNITS, "made_by": {"repair": "lsq", "dtype": "bfloat16", "unit_criterion": "flap"}},
            Execution(unit_repair="lsq", dtype="bfloat16"),
        ),
        (
            {"keep": UNITS, "drop": ["1"], "made_by": {"repair": "lsq+seam", **TEXT}},
            Execution(unit_repair="lsq", gap_repair="seam", calibration=READ),
        ),
        ({"drop": ["1"], "made_by": {"repair": "seam"}}, Execution(gap_repair="seam")),
        ({"drop": ["1"], "made_by": {"repair": "none"}}, Execution()),
        (
            {"keep": UNITS, "sparsity": WEIGHTS, "made_by": {"repair": "obs"}},
            Execution(unit_repair="lsq", weight_repair="obs"),
        ),
        ({"keep": UNITS, "sparsity": WEIGHTS, "made_by": {"repair": "none"}}, Execution()),
        (
            {"sparsity": WEIGHTS, "made_by": {"rotate": "pca", **TEXT}},
            Execution(rotation="pca", calibration=READ),
        ),
    ],
)
def test_a_plan_of_version_1_is_carried_out_as_it_was(body: dict[str, object], execution: Execution) -> None:
    assert version_1(**body).execution == execution


def test_a_plan_of_version_1_is_written_as_it_was_read() -> None:
    plan = version_1(keep=UNITS, made_by={"repair": "lsq"})
    assert json.loads(plan.to_json()) == {
        "version": 1,
        "model": "sha256:1",
        "keep": UNITS,
        "drop": [],
        "sparsity": {},
        "made_by": {"repair": "lsq"},
    }
    assert Plan.from_json(plan.to_json()) == plan


def test_the_facts_of_a_text_are_those_that_a_record_holds() -> None:
    assert READ.facts == TEXT
