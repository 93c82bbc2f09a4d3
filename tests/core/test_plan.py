"""A plan survives its own JSON, and nothing malformed gets through."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import Maker

from secateur.core.execution import CalibrationText, Execution
from secateur.core.plan import Plan
from secateur.model.handle import open_model
from secateur_runtime.errors import PlanError

names = st.text(max_size=20)
units = st.sets(st.integers(0, 10**6), max_size=20).map(lambda found: tuple(sorted(found)))
plans = st.builds(
    Plan,
    model=names,
    keep=st.dictionaries(names, units, max_size=4),
    drop=st.lists(names, max_size=4).map(tuple),
    merge=st.dictionaries(names, st.lists(names, min_size=1, max_size=3).map(tuple), max_size=3),
    sparsity=st.dictionaries(names, names, max_size=4),
    execution=st.builds(
        Execution,
        criterion=names,
        weight_repair=names,
        scope=st.sampled_from(["row", "tensor"]),
        unit_repair=names,
        gap_repair=st.sampled_from(["none", "seam"]),
        rotation=names,
        calibration=st.none()
        | st.builds(
            CalibrationText,
            text=names,
            samples=st.integers(1, 10**6),
            window=st.integers(1, 10**6),
            digest=names,
        ),
        seed=st.integers(0, 2**63),
        dtype=names,
    ),
    made_by=st.dictionaries(st.sampled_from(["criterion", "seed", "calibration"]), names),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["version", "model", "keep", "drop", "merge", "sparsity", "execution", "made_by", "x"]
            ),
            inner,
        )
    ),
)


@given(plans)
def test_a_plan_survives_its_json(plan: Plan) -> None:
    again = Plan.from_json(plan.to_json())
    assert again == plan
    assert again.to_json() == plan.to_json()
    assert again.digest() == plan.digest()


@given(json_values)
def test_any_other_json_is_refused_in_one_line_or_is_a_plan(value: object) -> None:
    try:
        plan = Plan.from_json(json.dumps(value))
    except PlanError as error:
        assert "\n" not in str(error)
    else:
        assert Plan.from_json(plan.to_json()) == plan


@given(st.text(max_size=60))
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(PlanError):
        Plan.from_json(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sparsty": {}}, "did you mean sparsity"),
        ({"version": 3}, "reads versions 1 and 2"),
        ({"version": True}, "reads versions 1 and 2"),
        ({"version": 2}, "'execution' is not a JSON object"),
        ({"version": 2, "execution": {"repair": "lsq"}}, "execution has an unknown key 'repair'"),
        ({"version": 2, "execution": {"sede": 1}}, "did you mean seed"),
        ({"version": 2, "execution": {"seed": "1"}}, "execution.seed must be a whole number"),
        ({"version": 2, "execution": {"seed": True}}, "execution.seed must be a whole number"),
        ({"version": 2, "execution": {"seed": -1}}, "execution.seed is below 0"),
        ({"version": 2, "execution": {"unit_repair": 1}}, "execution.unit_repair must be text"),
        ({"version": 2, "execution": {"scope": "all"}}, "execution.scope is 'all'; known: row, tensor"),
        (
            {"version": 2, "execution": {"gap_repair": "lsq"}},
            "execution.gap_repair is 'lsq'; known: none, seam",
        ),
        (
            {"version": 2, "execution": {"calibration": {"text": "x"}}},
            "execution.calibration lacks 'samples'",
        ),
        (
            {
                "version": 2,
                "execution": {"calibration": {"text": "", "samples": 0, "window": 1, "digest": ""}},
            },
            "at least one window",
        ),
        ({"execution": {}}, "version 1 has an 'execution' section"),
        ({"made_by": {"calibration": "x"}}, "made_by does not say which"),
        ({"made_by": {"seed": "one"}}, "made_by.seed is 'one'"),
        ({"made_by": {"scope": "all"}}, "made_by.scope is 'all'"),
        ({"made_by": {"sede": "1"}}, "did you mean seed"),
        ({"keep": {"0.ffn": [3, 2]}}, "ascending"),
        ({"keep": {"0.ffn": [-1]}}, "ascending"),
        ({"keep": {"0.ffn": [True]}}, "ascending"),
        ({"sparsity": {"w": 0.5}}, "strings"),
    ],
)
def test_malformed_fields_are_named(change: dict[str, object], message: str) -> None:
    body = {"version": 1, "model": "sha256:0"} | change
    with pytest.raises(PlanError, match=message):
        Plan.from_json(json.dumps(body))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"sparsity": {"model.layers.0.mlp.up_porj.weight": "0.5"}},
            "did you mean model.layers.0.mlp.up_proj.weight",
        ),
        ({"sparsity": {"model.layers.0.mlp.up_proj.weight": "2:5"}}, "not a multiple of 5"),
        ({"sparsity": {"model.layers.0.mlp.up_proj.weight": "1.5"}}, "outside"),
        ({"sparsity": {"model.embed_tokens.weight": "0.5"}}, "not a prunable linear"),
        ({"keep": {"0.ffn": (0, 10**6)}}, "out of range"),
        ({"keep": {"0.fnn": (0,)}}, "did you mean 0.ffn"),
        ({"keep": {"0.ffn": ()}}, "at least one"),
        ({"drop": ("99.attn",)}, "does not have"),
        ({"drop": ("1",), "merge": {"0": ("9",)}}, "merges '9', which is no block"),
        ({"drop": ("1", "0.ffn"), "merge": {"0": ("1",)}}, "of which it drops a part"),
        ({"drop": ("1.ffn",), "merge": {"0": ("1",)}}, "without dropping it"),
        ({"drop": ("1",), "merge": {"0": ("1",), "2": ("1",)}}, "more than once"),
        (
            {"keep": {"0.head": (0, 1, 2)}},
            r"unevenly \(2 of group 0, 1 of group 1\): every surviving key-value group needs equally many",
        ),
        ({"keep": {"0.head": (0, 1)}}, r"unevenly \(2 of group 0, 0 of group 1\)"),
        ({"keep": {"0.head": (0, 1), "0.kv": (1,)}}, r"unevenly \(0 of group 1\)"),
        ({"keep": {"hidden": ()}}, "at least one"),
        ({"keep": {"hidden": (64,)}}, "out of range"),
        ({"keep": {"hiden": (0,)}}, "did you mean hidden"),
        (
            {"keep": {"hidden": (0,)}, "sparsity": {"model.layers.0.mlp.up_proj.weight": "0.5"}},
            "cut first, then prune the result",
        ),
    ],
)
def test_what_the_model_does_not_have_is_refused(
    tiny: Maker, fields: dict[str, object], message: str
) -> None:
    graph = open_model(str(tiny("llama"))).graph
    with pytest.raises(PlanError, match=message):
        Plan(model="sha256:0", **fields).validate(graph, "sha256:0")  # type: ignore[arg-type]


def test_units_are_explained_as_shares_and_totals(tiny: Maker) -> None:
    graph = open_model(str(tiny("llama"))).graph
    lines = (
        Plan(
            model="",
            keep={"0.ffn": tuple(range(24)), "1.kv": (1,), "hidden": tuple(range(48))},
            drop=("2.attn",),
        )
        .explain(graph)
        .splitlines()
    )
    assert "0.ffn: keep 24 of 96 (25.0%)" in lines
    assert "1.kv: keep 1 of 2 (50.0%)" in lines
    assert "hidden channels: keep 48 of 64 (75.0%)" in lines
    assert "all ffn units: keep 216 of 288 (75.0%)" in lines
    assert lines[-1].startswith("parameters: ")


def _kept(size: int) -> st.SearchStrategy[tuple[int, ...]]:
    return st.sets(st.integers(0, size - 1), min_size=1).map(lambda found: tuple(sorted(found)))


@given(heads=_kept(6), groups=st.none() | _kept(2))
def test_heads_must_stay_even(tiny: Maker, heads: tuple[int, ...], groups: tuple[int, ...] | None) -> None:
    """A plan is valid exactly if all retained key-value heads serve the same number of query heads."""
    graph = open_model(str(tiny("llama", hidden_size=96, num_attention_heads=6, num_key_value_heads=2))).graph
    plan = Plan(model="sha256:0", keep={"1.head": heads} | ({"1.kv": groups} if groups else {}))
    served = [len({3 * group, 3 * group + 1, 3 * group + 2} & set(heads)) for group in groups or (0, 1)]
    if 0 in served or min(served) != max(served):
        with pytest.raises(PlanError, match="unevenly") as caught:
            plan.validate(graph, "sha256:0")
        assert "\n" not in str(caught.value)
    else:
        plan.validate(graph, "sha256:0")
