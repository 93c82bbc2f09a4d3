"""Pruning SmolLM2-135M with and without `--rotate`: perplexity, parameters, seconds and memory.

    python benchmarks/rotate.py [--only "Wanda 50 %"] [--jsonl out/rotate.jsonl] [--windows 20] [--samples 64]

Rows that `--jsonl` already holds are not measured again. Perplexity by the protocol. Seconds are those of the
whole process, what is learned, pruned, written, reloaded and compared. A rotated model stores its head beside
its embedding; `parameters` counts it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from common import measured, perplexity, prune, table

_HIDDEN = "--method width --units hidden --ratio 0.1"
ROWS = {
    "Wanda 50 %": "--method wanda --sparsity 0.5",
    "Wanda 50 %, learned": "--method wanda --sparsity 0.5 --rotate learned",
    "Wanda 50 %, heads": "--method wanda --sparsity 0.5 --rotate heads",
    "SparseGPT 50 %": "--method sparsegpt --sparsity 0.5",
    "SparseGPT 50 %, learned": "--method sparsegpt --sparsity 0.5 --rotate learned",
    "hidden -10 %": _HIDDEN,
    "hidden -10 %, pca": f"{_HIDDEN} --rotate pca",
}


def row(options: str, model: str, scratch: Path, windows: int, samples: int) -> dict[str, Any]:
    """Make one row's model and measure it."""
    done = prune(scratch / "out", *options.split(), "--samples", str(samples), model=model)
    found = perplexity(scratch / "out", windows)
    return {
        "perplexity": found,
        "windows": windows,
        "parameters": done.body["parameters"],
        "seconds": done.seconds,
        "peak_mb": done.peak_mb,
    }


def main() -> None:
    """Measure every row that has not been measured yet and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", action="append", choices=ROWS)
    parser.add_argument("--jsonl", type=Path, help="where every finished row is added")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--windows", type=int, default=20)
    parser.add_argument("--samples", type=int, default=64, help="windows of 512 tokens that calibrate")
    options = parser.parse_args()
    found = measured(
        options.only or ROWS,
        options.jsonl,
        lambda name, scratch: row(ROWS[name], options.model, scratch, options.windows, options.samples),
    )
    figures = [
        [
            name,
            f"{line['parameters'] / 1e6:.1f}M",
            f"{line['perplexity']:.2f}",
            str(line["windows"]),
            f"{line['seconds']:.0f}",
            f"{line['peak_mb']:.0f}",
        ]
        for name, line in found.items()
    ]
    print(table(["what", "parameters", "perplexity", "windows", "seconds", "peak MB"], figures))


if __name__ == "__main__":
    main()
