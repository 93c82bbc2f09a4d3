"""Write the page of methods from the registries: `python -m tests.method_tables`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from secateur.cli.shared.method_lists import REGISTRIES, registry
from secateur.model.families import FAMILIES
from secateur.pipeline.export.formats import EXPORTERS
from secateur.pipeline.prune.weights.methods import METHODS

PAGE = Path(__file__).parents[1] / "docs" / "methods.md"
HEAD = """\
# Methods

Everything that can be chosen by name. This page is written by `python -m tests.method_tables`.
`CONTRIBUTING.md` of the repository says how to add a method, here or in a package of your own.
"""
TITLES = {
    "prunings": "Kinds of pruning (`--method`; `weights` is that of every criterion of weights)",
    "criteria": "Criteria of weights (`--criterion`), each a `--method` too",
    "repairs": "Repairs of weights (`--repair`)",
    "allocations": "Spreads of sparsity over layers (`--allocation`)",
    "unit_criteria": "Criteria of units (`--method width --criterion`)",
    "unit_repairs": "Repairs of units (`--method width --repair`)",
    "spreads": "Spreads of units over groups (`--method width --allocation`)",
    "depth_criteria": "Criteria of depth (`--method depth --criterion`)",
    "quantizers": "Quantizers (`secateur quantize --method`)",
    "recoveries": "Recovery methods (`secateur recover --method`): what each trains",
    "policies": "Policies (`secateur serve --policy`)",
}


def page() -> str:
    """Return the text of `docs/methods.md`."""
    methods = "".join(f"\n## {TITLES[word]}\n\n" + "\n".join(_table(word)) + "\n" for word in REGISTRIES)
    return HEAD + methods + "\n".join([*_formats(), *_families()])


def _formats() -> Iterator[str]:
    yield from ("", "## Export formats (`secateur export --format`)", "")
    yield from ("| name | what it writes | types (`--type`) |", "|-|-|-|")
    for name, row in EXPORTERS.items():
        yield f"| `{name}` | {_cell(row.about)} | {', '.join(row.types)} |"


def _families() -> Iterator[str]:
    yield from ("", "## Model families (`model_type` of a config)", "")
    yield from ("| name | GGUF architecture | with blocks of unequal width |", "|-|-|-|")
    for name, row in FAMILIES.items():
        stored = row.gguf
        uneven = stored.per_block.loader.name if stored and stored.per_block else ""
        yield f"| `{name}` | {stored.loader.name if stored else ''} | {uneven} |"
    yield ""


def _table(word: str) -> Iterator[str]:
    yield "| name | what it does | source |"
    yield "|-|-|-|"
    for name, row in registry(word).items():
        yield f"| `{name}` | {_cell(row.summary)} | {row.paper} |"
    for name, method in METHODS.items() if word == "repairs" else ():
        yield f"| `--method {name}` | The repair `{method.repair}`, which chooses the weights itself. | |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
