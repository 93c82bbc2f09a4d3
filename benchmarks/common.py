"""What the benchmark scripts share: run a command, read its JSON, its wall time and its peak memory."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("SECATEUR_SHARED") or ROOT.parent / "shared")
CALIBRATION = SHARED / "data" / "c4" / "calibration.jsonl"
TEST_TEXT = SHARED / "data" / "wikitext-2" / "wiki.test.raw"
_EVERY = 0.05
SECATEUR = str(Path(sys.executable).with_name("secateur"))


@dataclass(frozen=True, slots=True)
class Run:
    """A finished command: its JSON output, seconds of wall time, peak resident memory in MB (10^6 bytes)."""

    body: dict[str, Any]
    seconds: float
    peak_mb: float


def run(command: list[str]) -> Run:
    """Run a command that ends by printing one JSON object.

    Raises RuntimeError with its stderr if it fails.
    """
    print("$", shlex.join(command), file=sys.stderr, flush=True)
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=output, stderr=errors)
        peak = _watched_to_its_end(process)
        seconds = time.perf_counter() - started
        output.seek(0)
        errors.seek(0)
        if process.returncode:
            raise RuntimeError(f"{shlex.join(command)} failed: {errors.read()[-2000:]}")
        text = output.read()
    return Run(json.loads(text[text.index("{") :]), seconds, peak)


def _watched_to_its_end(process: subprocess.Popen[bytes]) -> float:
    """Wait for a process and return its own peak resident memory in MB.

    The kernel's count is read every `_EVERY` seconds. What `wait4` reports is of no use here: under Linux a
    process inherits the peak of the one that starts it.
    """
    peak = 0
    while process.poll() is None:
        # Gone between the two lines, or a zombie, which has no memory any more.
        with contextlib.suppress(OSError, StopIteration):
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            peak = max(peak, int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]))
        time.sleep(_EVERY)
    return peak * 1024 / 1e6


def prune(out: Path, *options: str, model: str = "smollm2-135m", calibration: str = str(CALIBRATION)) -> Run:
    """Prune with the calibration of the protocol unless another is named."""
    return run(
        [SECATEUR, "prune", model, "-o", str(out), "--calib", calibration, "--overwrite", "--json", *options]
    )


def perplexity(model: str | Path, windows: int = 20) -> float:
    """Return the perplexity by the protocol: WikiText-2 test, 20 windows of 2,048 tokens, float32."""
    return float(
        run(
            [
                SECATEUR,
                "eval",
                str(model),
                "--text",
                str(TEST_TEXT),
                "--window",
                "2048",
                "-n",
                str(windows),
                "--json",
            ]
        ).body["perplexity"]
    )


def measured(
    names: Iterable[str], kept: Path | None, measure: Callable[[str, Path], dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Return what `measure` gives for each name and an empty folder, and what `kept` holds.

    That is added to, and not measured again.
    """
    lines = kept.read_text().splitlines() if kept and kept.exists() else []
    found = {line["name"]: line for line in map(json.loads, lines)}
    for name in names:
        if name not in found:
            with tempfile.TemporaryDirectory() as scratch:
                found[name] = {"name": name, **measure(name, Path(scratch))}
            if kept:
                with kept.open("a") as file:
                    file.write(json.dumps(found[name]) + "\n")
    return found


def table(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
