"""Structured pruning of SmolLM2-135M.

quality, size and speed in llama.cpp of every row, the whole model beside each.

    python benchmarks/structured.py [--only "FFN -20 %"] [--jsonl out/structured.jsonl]

Rows that `--jsonl` already holds are not measured again. Perplexity by the protocol; sizes and speeds are
those of the Q8_0 file, one thread, median of five runs that take turns with the whole model's.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from common import SECATEUR, measured, perplexity, prune, run, table

MODEL = "smollm2-135m"
ROWS = {
    "FFN -10 %, one width": "--method width --ratio 0.1",
    "FFN -10 %": "--method width --ratio 0.1 --allocation sensitivity",
    "FFN -20 %, one width": "--method width --ratio 0.2",
    "FFN -20 %": "--method width --ratio 0.2 --allocation sensitivity",
    "FFN -20 %, four times the text": "--method width --ratio 0.2 --allocation sensitivity --samples 256",
    "3 blocks": "--method depth --drop-layers 3",
    "8 blocks": "--method depth --drop-layers 8",
    "8 blocks' worth of halves": "--method depth --drop-layers 8 --sub-blocks",
    "-20 % of all blocks: auto": "--method auto --target ratio=0.2",
    "-20 % of all blocks: FFNs, no repair": (
        "--method width --target ratio=0.2 --allocation sensitivity --repair none"
    ),
    "-20 % of all blocks: FFNs and heads, no repair": (
        "--method width --units ffn,kv --target ratio=0.2 --allocation sensitivity --repair none"
    ),
    "-20 % of all blocks: depth, no repair": "--method depth --target ratio=0.2 --repair none",
}


def row(options: str, scratch: Path) -> dict[str, Any]:
    """Prune, evaluate and time one row."""
    done = prune(scratch / "out", *options.split())
    timed = run(
        [
            SECATEUR,
            "bench",
            str(scratch / "out"),
            "--backend",
            "llamacpp",
            "--type",
            "q8_0",
            "--threads",
            "1",
            "--against",
            MODEL,
            "--json",
        ]
    ).body
    pruned, whole = timed["models"]
    return {
        "parameters": done.body["parameters"],
        "perplexity": perplexity(scratch / "out"),
        "seconds": done.seconds,
        "megabytes": pruned["file_bytes"] / 1e6,
        "whole_megabytes": whole["file_bytes"] / 1e6,
        "decode": pruned["speeds"]["decode"],
        "speed_up": pruned["ratio"]["decode"],
    }


def main() -> None:
    """Measure every row that has not been measured yet and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", action="append", choices=ROWS)
    parser.add_argument("--jsonl", type=Path, help="where every finished row is added")
    options = parser.parse_args()
    found = measured(options.only or ROWS, options.jsonl, lambda name, scratch: row(ROWS[name], scratch))
    rows = [[name, *_figures(line)] for name, line in found.items()]
    print(
        table(
            [
                "what goes",
                "parameters",
                "perplexity",
                "seconds",
                "Q8_0 MB (whole)",
                "decode, tokens/s",
                "speed-up (range)",
            ],
            rows,
        )
    )


def _figures(line: dict[str, Any]) -> list[str]:
    ratio = line["speed_up"]
    return [
        f"{line['parameters'] / 1e6:.1f}M",
        f"{line['perplexity']:.2f}",
        f"{line['seconds']:.0f}",
        f"{line['megabytes']:.0f} ({line['whole_megabytes']:.0f})",
        f"{line['decode']['median']:.0f}",
        f"{ratio['median']:.2f} ({ratio['low']:.2f}-{ratio['high']:.2f})",
    ]


if __name__ == "__main__":
    main()
