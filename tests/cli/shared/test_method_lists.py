"""Lists of methods in help texts: filled when a verb's own help is shown, and never by an import of torch."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import get_args

import pytest
import typer
from tests.cli.command import Secateur

from secateur.cli import main
from secateur.cli.shared.method_lists import REGISTRIES, filled, registry, summaries
from secateur.core.pattern import Scope
from secateur.pipeline.prune.weights.methods import method_named
from secateur.train.losses import KINDS
from secateur.train.schedule import SCHEDULES

VERBS = {
    "prune": ("weight_methods", "criteria", "unit_criteria", "depth_criteria", "repairs", "unit_repairs"),
    "export": ("exporters", "export_types"),
    "plan": ("allocations", "spreads"),
    "quantize": ("quantizers",),
    "recover": ("recoveries",),
    "compare": ("weight_methods", "other_kinds"),
    "serve": ("policies",),
    "adapt simulate": ("policies",),
}


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_a_verb_names_every_method(secateur: Secateur, verb: str) -> None:
    code, printed, _ = secateur(*verb.split(), "--help")
    text = "".join(printed.split())
    assert code == 0
    assert not re.search(r"\{[a-z_]+:?\}", text)
    for word in VERBS[verb]:
        assert [name for name in summaries(word) if name not in text] == []


def test_closed_lists_in_help_texts_are_whole(secateur: Secateur) -> None:
    help_of = {verb: secateur(verb, "--help")[1] for verb in ("prune", "recover")}
    for verb, names in (("prune", get_args(Scope)), ("recover", (*KINDS, *SCHEDULES))):
        assert [name for name in names if name not in help_of[verb]] == []


def test_names_alone_and_with_what_they_do() -> None:
    assert filled("Such as {repairs}.") == "Such as admm, dsnot, lsq, none, obs."
    assert "none: zero the pruned weights and leave the others as they are; obs: sweep" in filled(
        "{repairs:}"
    )
    assert filled("plain") == "plain"


def test_every_method_of_weights_is_one() -> None:
    for name in summaries("weight_methods"):
        assert callable(method_named(name).solver)


def test_every_word_is_a_registry() -> None:
    assert [word for word in REGISTRIES if len(registry(word)) < 2] == []


def test_the_help_of_a_verb_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom secateur.cli.main import app\n"
        "app(['prune', '--help'], standalone_mode=False)\n"
        "print(*{'torch', 'transformers', 'scipy'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == ""
    assert "sparsegpt" in done.stdout


def test_every_verb_can_list_methods() -> None:
    """A text with a placeholder of a verb that does not fill it would be shown as it is."""

    def unfilled(command: object) -> list[str]:
        if commands := getattr(command, "commands", None):
            return [line for inner in commands.values() for line in unfilled(inner)]
        return [] if type(command).__name__ == "Verb" else [str(getattr(command, "name", ""))]

    assert unfilled(typer.main.get_command(main.app)) == []
