"""A model with fewer tokens: perplexity per token of the whole model, parameters, seconds, text length.

    python benchmarks/vocabulary.py [--model smollm2-135m] [--calib FILE] [--ratios 0.25 0.5 0.75]
                                    [--windows 20] [--window 2048] [--jsonl out/vocabulary.jsonl]

WikiText-2 test, the windows of the whole model. Each is encoded again by the tokenizer of the smaller one,
whose predictions of the same characters are counted per token of the whole one. Rows that `--jsonl` already
holds are not measured again.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from common import CALIBRATION, SECATEUR, TEST_TEXT, measured, prune, run, table


def row(ratio: float, scratch: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Prune one share of the tokens and measure what is left; 0 measures the whole model."""
    model = given.model
    made = {}
    if ratio:
        model = str(scratch / "out")
        done = prune(
            Path(model),
            "--method",
            "vocab",
            "--ratio",
            str(ratio),
            model=given.model,
            calibration=str(given.calib),
        )
        made = {"parameters": done.body["parameters"], "seconds": done.seconds, "peak_mb": done.peak_mb}
    command = [
        SECATEUR,
        "eval",
        model,
        "--text",
        str(TEST_TEXT),
        "--window",
        str(given.window),
        "-n",
        str(given.windows),
        "--json",
    ]
    found = run([*command, *(["--reference", given.model] if ratio else [])]).body
    return made | {
        "windows": given.windows,
        "perplexity": found["perplexity"],
        "bits_per_byte": found.get("bits_per_byte"),
    }


def main() -> None:
    """Measure every row that has not been measured yet and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--calib", type=Path, default=CALIBRATION)
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.25, 0.5, 0.75])
    parser.add_argument("--windows", type=int, default=20)
    parser.add_argument("--window", type=int, default=2048)
    parser.add_argument("--jsonl", type=Path, help="where every finished row is added")
    given = parser.parse_args()
    names = {
        (
            f"{Path(given.model).name} -{ratio:.0%}, {given.calib.name}"
            if ratio
            else f"{Path(given.model).name}, whole"
        ): ratio
        for ratio in [0.0, *given.ratios]
    }
    found = measured(names, given.jsonl, lambda name, scratch: row(names[name], scratch, given))
    rows = [
        [
            name,
            f"{line['parameters'] / 1e6:.1f}M" if "parameters" in line else "",
            f"{line['perplexity']:.2f}",
            f"{line.get('seconds', 0):.0f}",
        ]
        for name, line in found.items()
    ]
    print(table(["tokens", "parameters", "perplexity for a token of the whole model", "seconds"], rows))


if __name__ == "__main__":
    main()
