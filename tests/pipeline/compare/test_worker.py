"""The worker: its program starts, it tells how each row ended, and it is bound in memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.conftest import Maker
from tests.pipeline.compare.conftest import PROTOCOL

from secateur.model.handle import open_model
from secateur.pipeline.compare import worker
from secateur.pipeline.compare.row import DENSE
from secateur.pipeline.compare.worker_pool import python
from secateur.present.comparison_folder import ComparisonJob, read_cell
from secateur_runtime.errors import UsageError


def _lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_the_program_works_on_rows(tiny: Maker, tmp_path: Path) -> None:
    """In a process as a comparison starts it; a row that the folder has not does not stop the next."""
    model = open_model(str(tiny("llama")))
    job = ComparisonJob(
        ref=str(tiny("llama")),
        name="tiny",
        digest=model.digest,
        parameters=model.graph.parameters,
        protocols=PROTOCOL.sections(),
        rows=(DENSE,),
    )
    job.write(tmp_path)
    command = python(worker.START, tmp_path, "make", 0, os.getpid(), "none", DENSE.name)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    told = _lines(done.stdout)
    assert told[:2] == [
        {"begin": "none"},
        {"end": "none", "error": f"{tmp_path} compares no 'none'", "code": UsageError.exit_code},
    ]
    assert told[2] == {"begin": "dense"}
    assert told[-1] == {"end": "dense"}
    assert any("task" in line for line in told)
    assert set(PROTOCOL.parts) <= read_cell(tmp_path, job, DENSE).parts.keys()


def test_it_does_nothing_for_a_parent_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux tells of the death of a parent")
    monkeypatch.setattr("ctypes.CDLL", lambda name: SimpleNamespace(prctl=lambda *_: 0))
    worker.main(str(tmp_path), "make", "0", str(os.getppid() + 1), "dense")
    assert capsys.readouterr().out == ""


def test_a_bound_is_kept_by_the_kernel() -> None:
    """300 MB are refused under a bound of 200, and 50 are not."""
    program = (
        "import sys\nfrom secateur.pipeline.compare.worker import bound\nbound(int(sys.argv[1]))\n"
        "for size in (50, 300):\n try:\n  bytearray(size << 20)\n  print(size)\n except MemoryError:\n"
        "  print('refused')\n"
    )
    process = (
        "from secateur.runtime.process import process_memory\n"
        "found = process_memory()\nbound(found.resident + (200 << 20))\n"
    )
    program = program.replace("bound(int(sys.argv[1]))\n", process)
    done = subprocess.run(python(program), capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["50", "refused"]
