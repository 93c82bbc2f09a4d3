"""The command in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from secateur.cli.main import run as main


@pytest.fixture
def secateur(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run the command in this process; returns exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        # What fixtures printed on the way is not the command's.
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["secateur", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
            sys.exit(0)
        output = capsys.readouterr()
        return int(stopped.value.code or 0), output.out, output.err

    return run
