"""What a comparison costs and whether its figures are those of the single verbs.

python benchmarks/compare.py quick      # `--quick` on SmolLM2-135M, its seconds, and `secateur eval` of every
folder it wrote python benchmarks/compare.py overhead   # the seconds of a comparison beside those of prune,
export, eval and bench, one after the other python benchmarks/compare.py memory     # four workers on little
memory, watched from outside by what the kernel counts
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from common import CALIBRATION, SECATEUR, TEST_TEXT, run, table
from secateur_runtime.sensors.system_memory import tree_bytes

MODEL = "smollm2-135m"
CALIB = ["--calib", str(CALIBRATION)]
TEXT = ["--text", str(TEST_TEXT)]
METHODS = ("width:criterion=minitron",)
LITTLE = ["--samples", "8", "--calib-window", "512"]
SPEED = ["--prompt", "32", "--tokens", "16", "--repeat", "7"]


def value(row: dict[str, Any], name: str) -> float | None:
    """Return a figure of a row, if it has one."""
    return next((record["value"] for record in row["records"] if record["name"] == name), None)


def quick(out: Path, *, check: bool, model: str) -> None:
    """Run `--quick`, print its seconds, and compare its perplexities with those of `secateur eval`."""
    done = run(
        [SECATEUR, "compare", model, "-o", str(out), "--quick", "--keep-models", *TEXT, *CALIB, "--json"]
    )
    rows = done.body["rows"]
    print(
        f"{len(rows)} rows, {done.seconds:.0f} s, failed: {[row['row'] for row in rows if row['failed']]},"
        f" peak {done.body['peak_memory'] / 1e6:.0f} MB"
    )
    if not check:
        return
    found = []
    for row in rows:
        (place,) = (out / "cells").glob(f"{row['row'].replace(' ', '_').replace(':', '_')}-*")
        source = (
            model
            if row["row"] == "dense"
            else str(place / ("model.gguf" if row["kind"] == "quantized" else "model"))
        )
        again = run([SECATEUR, "eval", source, *TEXT, "--window", "1024", "-n", "4", "--json"]).body[
            "perplexity"
        ]
        found.append(
            [
                row["row"],
                repr(value(row, "perplexity")),
                repr(again),
                "equal" if again == value(row, "perplexity") else "not equal",
            ]
        )
    print(table(["row", "in the table", "secateur eval", ""], found))


def overhead(folder: Path, model: str) -> None:
    """Time a comparison row by row, then what it consists of as single commands."""
    started = time.perf_counter()
    common = [
        "--workers",
        "1",
        "--backends",
        "llamacpp",
        "--methods",
        ",".join(METHODS),
        "--targets",
        "ratio=0.2",
    ]
    run(
        [
            SECATEUR,
            "compare",
            model,
            "-o",
            str(folder / "compared"),
            *common,
            *TEXT,
            "--window",
            "1024",
            "-n",
            "4",
            *CALIB,
            *LITTLE,
            *SPEED,
            "--json",
        ]
    )
    together = time.perf_counter() - started
    parts = {"dense": alone(model, folder / "dense.gguf", "f16", measured=model)}
    for kind in ("q8_0", "q4_0"):
        parts[kind] = alone(
            model,
            folder / f"{kind}.gguf",
            kind,
            measured=str(folder / f"{kind}.gguf"),
            against=folder / "dense.gguf",
        )
    for index, method in enumerate(METHODS):
        name, _, option = method.partition(":")
        key, _, given = option.partition("=")
        out = folder / str(index)
        how = ["--method", name, "--target", "ratio=0.2", *([f"--{key}", given] if option else [])]
        pruned = run([SECATEUR, "prune", model, "-o", str(out), *how, *CALIB, *LITTLE, "--json"]).seconds
        parts[method] = pruned + alone(
            str(out), folder / f"{index}.gguf", "f16", measured=str(out), against=folder / "dense.gguf"
        )
    print(
        table(
            ["row", "seconds as single commands"],
            [[name, f"{seconds:.1f}"] for name, seconds in parts.items()],
        )
    )
    whole = sum(parts.values())
    print(f"compare {together:.1f} s, its parts {whole:.1f} s: {together / whole - 1:+.1%}")


def alone(source: str, file: Path, kind: str, *, measured: str, against: Path | None = None) -> float:
    """Return the seconds of export, eval and bench as single commands."""
    spent = run([SECATEUR, "export", source, "-o", str(file), "--type", kind, "--json"]).seconds
    spent += run([SECATEUR, "eval", measured, *TEXT, "--window", "1024", "-n", "4", "--json"]).seconds
    other = ["--against", str(against)] if against else []
    return (
        spent + run([SECATEUR, "bench", str(file), "--backend", "llamacpp", *SPEED, *other, "--json"]).seconds
    )


def memory(folder: Path, model: str, limit: int) -> None:
    """Run four workers within `limit` bytes, and look at the tree of processes twenty times a second."""
    command = [
        SECATEUR,
        "compare",
        model,
        "-o",
        str(folder / "compared"),
        "--workers",
        "4",
        "--max-ram",
        str(limit),
        "--backends",
        "none",
        "--json",
    ]
    command += [
        "--methods",
        "magnitude,wanda,ria,sparsegpt",
        "--targets",
        "ratio=0.2",
        *TEXT,
        "--window",
        "512",
        "-n",
        "2",
        *CALIB,
        "--samples",
        "4",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    seen = [0]
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.05):
            seen.append(tree_bytes(process.pid))

    thread = threading.Thread(target=look)
    thread.start()
    body = json.loads(process.communicate()[0])
    over.set()
    thread.join()
    failed = [row["row"] for row in body["rows"] if row["failed"]]
    most = max(seen)
    print(
        f"limit {limit / 1e6:.0f} MB, most seen from outside {most / 1e6:.0f} MB in {len(seen)} looks, by"
        f" compare {body['peak_memory'] / 1e6:.0f} MB"
    )
    print(
        f"{len(body['rows'])} rows in {body['seconds']:.0f} s on {os.cpu_count()} cores, failed: {failed};"
        f" {'within' if most <= limit else 'OVER'} the limit"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["quick", "overhead", "memory"])
    parser.add_argument("--model", default=MODEL)
    parser.add_argument(
        "--out", type=Path, help="where the comparison is kept; a temporary folder if not given"
    )
    parser.add_argument(
        "--check", action="store_true", help="quick: also run `secateur eval` on every folder"
    )
    parser.add_argument("--max-ram", type=int, default=3_000_000_000, help="memory: bytes for all")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = wanted.out or Path(scratch)
        if wanted.what == "quick":
            quick(folder / "quick", check=wanted.check, model=wanted.model)
        elif wanted.what == "overhead":
            overhead(folder, wanted.model)
        else:
            memory(folder, wanted.model, wanted.max_ram)


if __name__ == "__main__":
    main()
