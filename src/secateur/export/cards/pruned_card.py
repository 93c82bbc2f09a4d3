"""The README.md of a written model: what was done to it, what was measured, and how to load it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from secateur.core.card_front_matter import front_matter
from secateur.core.footprint import dropped_halves, kept_shape
from secateur.core.graph import Graph
from secateur.core.plan import Plan

_WIDTHS = {"intermediate_size": "FFN neurons", "n_kv_heads": "Key-value heads", "n_heads": "Query heads"}
_SAID = {
    "target": "Asked for",
    "tried": "Tried (divergence from the dense model, nats per token; the first was taken)",
    "units": "Units",
    "criterion": "Criterion for weights",
    "unit_criterion": "Criterion for units",
    "depth_criterion": "Criterion for blocks",
    "allocation": "Spread over blocks",
    "repair": "Repair",
    "output_bias": "Outputs given a bias (others are only scaled)",
    "protect": "Protected",
    "layers": "Blocks",
    "seed": "Seed",
    "secateur": "Secateur",
}
_SAID_OTHERWISE = {
    *("scope", "rotate", "align", "keep_heads", "dtype", "calibration", "calibration_digest"),
    *("counted", "counted_digest", "samples", "window"),
}
_STOCK = """Transformers loads it as it is:

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("path/to/this/folder")
tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
```
"""
_UNEQUAL = """Its widths are not such as transformers' own classes take, so it brings the code that builds \
it. With Secateur installed that is not needed:

```python
import secateur
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("path/to/this/folder")
tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
```

Without it, pass `trust_remote_code=True` to both calls: that runs `modeling_secateur.py` of this folder.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Facts about a written model that its plan does not hold.

    name: of the source model. base: its id on the Hugging Face hub, or empty. parameters, bytes: of the
    written weights. zeros: share of zeros in the tensors pruned weight by weight. difference: the largest
    between the reloaded folder and the run that wrote it, relative to the largest value. stock: transformers
    loads it without further code.
    """

    name: str
    base: str
    parameters: int
    bytes: int
    zeros: float
    difference: float
    stock: bool


def model_card(plan: Plan, graph: Graph, facts: Facts) -> str:
    """Return a Hugging Face model card of the model that `plan` made of the one of `graph`."""
    share = facts.parameters / graph.parameters
    parts = [
        front_matter(("pruned", "secateur"), base=facts.base),
        f"# {facts.name}, pruned\n",
        (
            f"{facts.name} with {facts.parameters:,} of its {graph.parameters:,} parameters ({share:.1%}),"
            " pruned with Secateur.\n"
        ),
        "## What was removed\n",
        *(f"- {line}" for line in _removed(plan, graph)),
        "\n## How that was decided\n",
        *(f"- {line}" for line in _decided(plan)),
        "\n`plan.json` holds the whole plan; `secateur apply` repeats it.\n",
        "## What was measured\n",
        *_measured(plan, graph, facts),
        "\nPerplexity was not measured by the run that wrote this folder; `secateur eval` does.\n",
        "## How to load it\n",
        _STOCK if facts.stock else _UNEQUAL,
    ]
    return "\n".join(parts)


def _removed(plan: Plan, graph: Graph) -> Iterator[str]:
    shapes = [(block.shape, kept_shape(block, plan.keep, plan.drop)) for block in graph.blocks]
    for field, name in _WIDTHS.items():
        widths = [
            (getattr(before, field), getattr(after, field))
            for before, after in shapes
            if getattr(after, field)
        ]
        if any(before != after for before, after in widths):
            yield (
                f"{name} per block: {_range([before for before, _ in widths])} before,"
                f" {_range([after for _, after in widths])} after."
            )
    if len(plan.keep.get(graph.hidden.name, range(graph.hidden_size))) < graph.hidden_size:
        yield f"Hidden channels: {graph.hidden_size} before, {len(plan.keep[graph.hidden.name])} after."
    if graph.vocab.name in plan.keep:
        yield (
            f"Tokens: {graph.vocab.size} before, {len(plan.keep[graph.vocab.name])} after; text with the"
            " others is spelled with more of these."
        )
    removed = {block.index: dropped_halves(block, plan.drop) for block in graph.blocks}
    for name, sub_blocks in (("Whole blocks", {"attn", "ffn"}), ("Attention", {"attn"}), ("FFN", {"ffn"})):
        indices = [str(index) for index, dropped in removed.items() if dropped == sub_blocks]
        if indices:
            yield f"{name} removed, of {len(graph.blocks)} blocks counted from 0: {', '.join(indices)}."
    for index, others in plan.merge.items():
        yield f"Block {index} took in the differences of {', '.join(others)}."
    for pattern, count in sorted(Counter(plan.sparsity.values()).items()):
        yield f"Single weights of {count} matrices, set to zero: {pattern}."


def _range(sizes: list[int]) -> str:
    return (
        f"{sizes[0]}"
        if len(set(sizes)) == 1
        else f"{min(sizes)} to {max(sizes)} (mean {sum(sizes) / len(sizes):.1f})"
    )


def _decided(plan: Plan) -> Iterator[str]:
    made_by = plan.made_by
    for key, name in _SAID.items():
        if made_by.get(key):
            yield f"{name}: {made_by[key]}"
    for key in sorted(made_by.keys() - _SAID.keys() - _SAID_OTHERWISE):
        yield f"{key}: {made_by[key]}"
    if "calibration" in made_by:
        size = f"{made_by.get('samples')} windows of {made_by.get('window')} tokens"
        yield (
            f"Calibration text: {origin(made_by['calibration'])}, {size}, digest"
            f" `{made_by.get('calibration_digest')}`"
        )
    if "counted" in made_by:
        yield (
            f"Tokens were counted on: {origin(made_by['counted'])}, digest `{made_by.get('counted_digest')}`"
        )
    yield f"Source weights: digest `{plan.model}`"
    yield f"Plan: digest `{plan.digest()}`"


def origin(text: str) -> str:
    """Return what a card says of a text: the name of a file without its folder, which is private."""
    return text if text.startswith("hf:") else text.replace("\\", "/").rpartition("/")[2]


def _measured(plan: Plan, graph: Graph, facts: Facts) -> Iterator[str]:
    yield "| | before | after |"
    yield "|---|---|---|"
    yield f"| parameters | {graph.parameters:,} | {facts.parameters:,} |"
    yield f"| bytes of weight files | | {facts.bytes:,} |"
    if plan.sparsity:
        yield f"| zeros in the pruned matrices | | {facts.zeros:.1%} |"
    yield (
        f"\nThe folder was loaded again and run: it differs from what was meant by {facts.difference:.1e} of"
        " the largest value at most."
    )
