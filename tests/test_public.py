"""The names of `secateur` are there, and no folder of the same name takes their place."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys

import secateur


def test_every_public_name_is_there() -> None:
    for name in secateur.__all__:
        assert callable(getattr(secateur, name)), name


def test_no_folder_is_called_like_a_public_name() -> None:
    assert not {module.name for module in pkgutil.iter_modules(secateur.__path__)} & set(secateur.__all__)


def test_functions_are_those_of_the_verbs() -> None:
    for name, module in (
        ("compare", "compare.compare"),
        ("prune", "prune.prune"),
        ("card", "compare.model_card"),
    ):
        assert getattr(secateur, name) is getattr(
            importlib.import_module(f"secateur.pipeline.{module}"), name
        )


def test_importing_is_instant() -> None:
    """Nothing heavy is imported before a name is used."""
    program = (
        "import sys, secateur; sys.exit(any(name in sys.modules for name in ('torch', 'transformers',"
        " 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
