"""Are scores those of lm-eval's own command, to the last digit, and how long do they take?

Both commands score the same pruned folder in turn, in float32, with the mirror as working directory of
lm-eval's.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import SECATEUR, SHARED, prune, table

TASKS = ("arc_easy", "hellaswag", "winogrande", "openbookqa")
MIRROR = SHARED / "hub"


def timed(command: list[str], folder: Path | None = None) -> tuple[str, float, float]:
    """Run a command and return what it printed, seconds of wall time and of processor time.

    Raises RuntimeError if it fails.
    """
    print("$", *command, file=sys.stderr, flush=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return (
        done.stdout,
        time.perf_counter() - started,
        after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
    )


def ours(
    folder: Path, tasks: list[str], limit: int
) -> tuple[dict[tuple[str, str], tuple[Any, Any]], float, float]:
    """Return `(task, metric) -> (value, standard error)` by secateur, and the seconds."""
    printed, wall, cpu = timed(
        [
            SECATEUR,
            "eval",
            str(folder),
            "--tasks",
            ",".join(tasks),
            "--limit",
            str(limit),
            "--datasets",
            str(MIRROR),
            "--json",
        ]
    )
    body = json.loads(printed)["tasks"]
    figures = {
        (task, metric): (row["value"], row["standard_error"])
        for task in body
        for metric, row in body[task]["metrics"].items()
    }
    return figures, wall, cpu


def theirs(
    folder: Path, tasks: list[str], limit: int, batch: int, scratch: Path
) -> tuple[dict[tuple[str, str], tuple[Any, Any]], float, float]:
    """Return the same by lm-eval's own command."""
    command = [
        sys.executable,
        "-m",
        "lm_eval",
        "run",
        "--model",
        "hf",
        "--model_args",
        f"pretrained={folder},dtype=float32",
        "--device",
        "cpu",
    ]
    command += [
        "--tasks",
        ",".join(tasks),
        "--limit",
        str(limit),
        "--batch_size",
        str(batch),
        "--output_path",
        str(scratch),
    ]
    _, wall, cpu = timed(command, MIRROR)
    body = json.loads(
        max(scratch.rglob("results_*.json"), key=lambda path: path.stat().st_mtime).read_text()
    )["results"]
    figures = {}
    for task, row in body.items():
        for key, value in row.items():
            metric, comma, _ = key.partition(",")
            if comma and not metric.endswith("_stderr"):
                error = row[f"{metric}_stderr,none"]
                figures[task, metric] = (value, None if error == "N/A" else error)
    return figures, wall, cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--batch", type=int, default=8, help="rows at once in lm-eval's own command")
    parser.add_argument(
        "--model",
        type=Path,
        help="a folder; SmolLM2-135M with 30 %% of its smallest weights gone if not given",
    )
    parser.add_argument("--own", action="store_true", help="leave lm-eval's own command out")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = wanted.model or Path(scratch) / "model"
        if not wanted.model:
            prune(folder, "--method", "magnitude", "--sparsity", "0.3")
        tasks = wanted.tasks.split(",")
        left, wall, cpu = ours(folder.resolve(), tasks, wanted.limit)
        print(
            f"secateur: {wall:.0f} s, {cpu:.0f} s of processor time,"
            f" {os.environ.get('OMP_NUM_THREADS', 'all')} threads"
        )
        right: dict[tuple[str, str], tuple[Any, Any]] = {}
        if not wanted.own:
            right, wall, cpu = theirs(
                folder.resolve(), tasks, wanted.limit, wanted.batch, Path(scratch) / "results"
            )
            print(f"lm_eval, batches of {wanted.batch}: {wall:.0f} s, {cpu:.0f} s of processor time")
    rows = [
        [task, metric, *map(repr, left[task, metric]), *map(repr, right.get((task, metric), ("", "")))]
        for task, metric in left
    ]
    print(table(["task", "figure", "secateur", "error", "lm_eval", "error"], rows))
    print("equal" if left == right else "not equal" if right else "")


if __name__ == "__main__":
    main()
