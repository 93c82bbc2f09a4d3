"""A plug-in that pip installed is a row of its table in another process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.plugins import install_plugin, run_secateur

CRITERION = """
import torch

from secateur.criteria import criterion


@criterion("small-first")
def small_first(weight, stats):
    '''Return the negated absolute weight.'''
    return -torch.abs(weight)
"""
LIST = "from secateur.criteria import CRITERIA; print(*CRITERIA)"


def test_an_installed_plug_in_is_found_and_an_uninstalled_one_is_not(tmp_path: Path) -> None:
    environment = install_plugin(tmp_path, "small-first", "secateur.criteria", CRITERION)
    for found, env in ((True, environment), (False, None)):
        done = subprocess.run(
            [sys.executable, "-c", LIST], env=env, capture_output=True, text=True, check=True
        )
        assert ("small-first" in done.stdout.split()) is found


def test_the_command_runs_in_the_environment(tmp_path: Path) -> None:
    environment = install_plugin(tmp_path, "small-first", "secateur.criteria", CRITERION)
    done = run_secateur(environment, "prune", "--help")
    assert done.returncode == 0, done.stderr
    assert "prune" in done.stdout
