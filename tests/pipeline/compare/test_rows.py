"""Which rows a comparison has: what is typed, what is refused, and that sizes are matched."""

from __future__ import annotations

import pytest
from tests.conftest import Maker

from secateur.allocate import ALLOCATIONS
from secateur.allocate.units import SPREADS
from secateur.core.graph import Graph
from secateur.criteria.depth import DEPTH_CRITERIA
from secateur.criteria.units import UNIT_CRITERIA, kinds_of
from secateur.model.handle import open_model
from secateur.pipeline.compare.rows import (
    DEFAULT,
    RowMethod,
    Size,
    every_method,
    methods_named,
    parsed,
    rows_of,
)
from secateur.pipeline.prune.auto.decide import Auto
from secateur.pipeline.prune.depth.decide import Depth
from secateur.pipeline.prune.weights.decide import Sparsity
from secateur.pipeline.prune.weights.methods import weight_methods
from secateur.pipeline.prune.width.decide import Width
from secateur.present.comparison_folder import ComparisonRow
from secateur.transform.repair import REPAIRS
from secateur.transform.unit_repair import UNIT_REPAIRS
from secateur_runtime.errors import SecateurError, TargetError, UsageError


@pytest.fixture
def graph(tiny: Maker) -> Graph:
    return open_model(str(tiny("llama"))).graph


def test_options_over_a_method(graph: Graph) -> None:
    method = RowMethod.parse("width:criterion=flap:units=ffn+kv:align=16")
    assert method.goal(Size.parse("ratio=0.2"), graph) == Width(
        target="ratio=0.2", criterion="flap", units=("ffn", "kv"), align=16
    )
    assert RowMethod.parse("depth:sub-blocks").goal(Size.parse("params=80%"), graph) == Depth(
        target="params=80%", sub_blocks=True
    )
    assert RowMethod.parse("wanda:repair=dsnot").goal(Size.parse("2:4"), graph) == Sparsity(
        sparsity="2:4", method="wanda", repair="dsnot"
    )


def test_all_is_every_registered_method(graph: Graph) -> None:
    methods = methods_named(["all"])
    assert [method.text for method in methods] == every_method()
    words = {word.split("=")[-1] for method in methods for word in method.text.split(":")}
    able = {name for name in UNIT_CRITERIA if "ffn" in kinds_of(name)}
    registered = {*weight_methods(), *REPAIRS, *ALLOCATIONS, *SPREADS, *UNIT_REPAIRS, *DEPTH_CRITERIA, *able}
    # These are what width and depth do by themselves.
    assert {*registered, "width", "depth", "auto"} - {"uniform", "influence"} <= words
    assert [method.goal(Size.parse("ratio=0.2"), graph) for method in methods]


def test_all_may_stand_among_others() -> None:
    named = [method.text for method in methods_named(["width:units=kv", "all,wanda"])]
    assert named == ["width:units=kv", *every_method()]
    with pytest.raises(UsageError, match=r"unknown method 'al'"):
        methods_named(["al"])


def test_kinds() -> None:
    kinds = {
        text: RowMethod.parse(text).kind
        for text in ("magnitude", "wanda", "sparsegpt", "wanda:criterion=magnitude", "width", "depth", "auto")
    }
    assert list(kinds.values()) == [
        "magnitude",
        "unstructured",
        "unstructured",
        "magnitude",
        "structured",
        "structured",
        "structured",
    ]


def test_as_many_weights_are_left_as_units_would_leave(graph: Graph) -> None:
    """A share of block parameters is a little more of the linears; one of all parameters is much more."""
    weights = sum(graph.tensors[linear.tensor].numel for linear in graph.linears)
    blocks = sum(graph.tensors[name].numel for block in graph.blocks for name in block.tensors)
    assert float(Size.parse("ratio=0.25").sparsity(graph)) == pytest.approx(0.25 * blocks / weights, abs=2e-6)
    assert float(Size.parse("params=80%").sparsity(graph)) == pytest.approx(
        0.2 * graph.parameters / weights, abs=2e-6
    )
    left = graph.parameters - 10_000
    assert float(Size.parse(f"params={left}").sparsity(graph)) == pytest.approx(10_000 / weights, abs=2e-6)
    assert Size.parse("2:4").sparsity(graph) == "2:4"
    assert Size.parse("2:4").budget == "ratio=0.5"
    assert str(Size.parse("30%")) == "ratio=0.3"


def test_the_whole_and_the_quantized_model_are_always_in() -> None:
    rows, left_out = rows_of(
        parsed(["wanda,width"], RowMethod.parse, "methods"),
        parsed(["ratio=0.2", "size=1MB"], Size.parse, "targets"),
    )
    assert [row.name for row in rows] == [
        "dense",
        "q8_0",
        "q4_0",
        "wanda at ratio=0.2",
        "width at ratio=0.2",
        "width at size=1MB",
    ]
    assert left_out == ("wanda not at size=1MB: zeros in place take as many bytes",)


def test_each_once() -> None:
    assert len(parsed(["wanda, wanda", "wanda"], RowMethod.parse, "methods")) == 1
    rows, _ = rows_of(
        parsed(["wanda"], RowMethod.parse, "methods"), parsed(["0.2,20%,ratio=0.2"], Size.parse, "targets")
    )
    assert rows[-1] == ComparisonRow("wanda", "ratio=0.2", "unstructured")
    assert len(rows) == 4


def test_every_default_method_can_be_asked(graph: Graph) -> None:
    kinds = {"width": Width, "depth": Depth, "auto": Auto}
    for text in DEFAULT:
        name = text.partition(":")[0]
        for size in ("ratio=0.2", "2:4"):
            goal = RowMethod.parse(text).goal(Size.parse(size), graph)
            assert type(goal) is kinds.get(name, Sparsity), (text, size)
            assert not isinstance(goal, Sparsity) or goal.method == name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("wnada", "did you mean wanda"),
        ("", "unknown method ''"),
        ("width:criterum=flap", "did you mean criterion"),
        ("width:criterion=flop", "did you mean flap"),
        ("depth:criterion=influenza", "did you mean influence"),
        ("wanda:repair=dsnott", "did you mean dsnot"),
        ("width:allocation=knapsak", "did you mean knapsack"),
        ("wanda:allocation=owls", "did you mean owl"),
        ("width:align=wide", "has a value that cannot work"),
        ("width:ratio=0.3", "knows no option 'ratio'"),
        ("depth:sub-blocks=perhaps", "has a value that cannot work"),
        ("width:uniform:allocation=knapsack", "contradict"),
    ],
)
def test_a_method_that_cannot_work(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        RowMethod.parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2:4+ratio=0.3", "joins a pattern"),
        ("ratio=0.2+ratio=0.3", "says ratio= twice"),
        ("parms=80%", "did you mean params"),
        ("half", "neither a ratio"),
        ("0", "takes nothing away"),
        ("ram=1GB", "needs a context"),
    ],
)
def test_a_target_that_cannot_work(text: str, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        Size.parse(text)


def test_targets_that_these_methods_cannot_meet(graph: Graph) -> None:
    with pytest.raises(TargetError, match="counts bytes, and wanda leave zeros"):
        rows_of([RowMethod.parse("wanda")], [Size.parse("size=1MB")])
    for text, message, ends in (("params=1", "out of reach", 3), ("params=999G", "as it is", 2)):
        with pytest.raises(SecateurError, match=message) as caught:
            RowMethod.parse("wanda").goal(Size.parse(text), graph)
        assert caught.value.exit_code == ends
    with pytest.raises(UsageError, match="--methods names none"):
        parsed([" , "], RowMethod.parse, "methods")
