"""Which criterion, repair, spread and calibration text should be the defaults?

    python benchmarks/choices.py [--only spread] [--jsonl out/choices.jsonl]

Perplexity of every choice on SmolLM2-135M. Cells that `--jsonl` already holds are not measured again, so a
stopped run continues.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from common import measured, perplexity, prune, table

AMOUNT = {"50": "--sparsity 0.5", "60": "--sparsity 0.6", "70": "--sparsity 0.7", "2:4": "--pattern 2:4"}
CHOICES = {
    "method": [
        f"--method {name} {AMOUNT[amount]}"
        for amount in ("60", "70")
        for name in ("wanda", "sparsegpt", "alps")
    ],
    "arithmetic": [
        f"--method wanda {AMOUNT[amount]}{kind}"
        for amount in ("50", "2:4")
        for kind in ("", " --dtype float32 --compute float32")
    ],
    "calibration": [
        f"--method sparsegpt {AMOUNT[amount]} --calib {text}"
        for amount in ("50", "2:4")
        for text in ("builtin", "self")
    ],
    "spread": [
        f"--method sparsegpt {AMOUNT['60']} --allocation {name}" for name in ("owl", "error", "global")
    ],
    "criterion": [f"--method {name} {AMOUNT['50']}" for name in ("magnitude", "ria")],
    "repair": [f"--method wanda --repair {name} {AMOUNT['50']}" for name in ("dsnot", "lsq", "admm")],
    "scope": [
        f"--method wanda --scope tensor {AMOUNT['50']}",
        f"--method sparsegpt --scope row {AMOUNT['50']}",
    ],
}


def cell(options: str, scratch: Path) -> dict[str, float]:
    """Prune in one way and measure what came of it."""
    done = prune(scratch / "out", *options.split())
    return {"perplexity": perplexity(scratch / "out"), "seconds": done.seconds, "peak_mb": done.peak_mb}


def main() -> None:
    """Measure every choice that has not been measured yet and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", action="append", choices=CHOICES)
    parser.add_argument("--jsonl", type=Path, help="where every finished cell is added")
    options = parser.parse_args()
    chosen = [choice for question in options.only or CHOICES for choice in CHOICES[question]]
    cells = measured(chosen, options.jsonl, cell)
    rows = [
        [name, f"{cell['perplexity']:.2f}", f"{cell['seconds']:.0f}", f"{cell['peak_mb']:.0f}"]
        for name, cell in cells.items()
    ]
    print(table(["options", "perplexity", "seconds", "peak MB"], rows))


if __name__ == "__main__":
    main()
