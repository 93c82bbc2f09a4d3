"""Plug-ins as a stranger writes them: a real distribution with an entry point, installed by pip."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src"
_PROJECT = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "{distribution}"
version = "1.0"

[project.entry-points."{group}"]
"{name}" = "{module}"

[tool.setuptools]
py-modules = ["{module}"]
"""


def install_plugin(folder: Path, name: str, group: str, source: str) -> dict[str, str]:
    """Install a distribution of one module and return the environment that has it.

    folder: an empty or missing folder for the source tree and the installation; first on PYTHONPATH.
    name: of the row that the plug-in adds, and of its entry point in `group`, such as `secateur.criteria`.
    source: text of the module. Skips the test on a machine without pip or setuptools.
    """
    missing = [tool for tool in ("pip", "setuptools") if importlib.util.find_spec(tool) is None]
    if missing:
        pytest.skip(f"no {' and no '.join(missing)} to install a plug-in with")
    tree = folder / "source"
    tree.mkdir(parents=True)
    module = "secateur_plugin_" + "".join(letter if letter.isalnum() else "_" for letter in name)
    (tree / f"{module}.py").write_text(source)
    (tree / "pyproject.toml").write_text(
        _PROJECT.format(distribution=module.replace("_", "-"), group=group, name=name, module=module)
    )
    installed = folder / "installed"
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--target", str(installed)]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, str(tree)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )
    assert done.returncode == 0, done.stderr
    before = os.environ.get("PYTHONPATH")
    path = os.pathsep.join(map(str, filter(None, [installed, SRC, before])))
    return os.environ | {"PYTHONPATH": path}


def run_secateur(environment: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `python -m secateur ARGUMENTS` in an environment that `install_plugin` returned."""
    return subprocess.run(
        [sys.executable, "-m", "secateur", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
