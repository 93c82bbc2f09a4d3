"""Quantized SmolLM2-135M: perplexity and size of every method and grid.

    python benchmarks/quantize.py [--only "GPTQ int4-g32"] [--jsonl out/quantize.jsonl] [--windows 20]

The dense model and llama.cpp's own Q4_0 are measured too. Rows that `--jsonl` already holds are not measured
again. Perplexity by the protocol. Q4_0 is what gguf, and llama.cpp without an importance matrix, make of the
model; every other file is the GGUF export of the quantized folder, which is checked in llama.cpp before it
appears.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from common import CALIBRATION, SECATEUR, measured, perplexity, run, table

MODEL = "smollm2-135m"
ROWS = {
    "dense": "",
    "Q4_0": "export --type q4_0",
    "GPTQ int4-g32": "quantize",
    "GPTQ int4-g32, scales trained": (
        "quantize | recover --method scales --steps 60 --batch 1024 --micro 2 --samples 140 --teacher"
        " smollm2-135m"
    ),
    "GPTQ int4a-g32": "quantize --asymmetric",
    "GPTQ int3-g32": "quantize --bits 3",
    "imatrix int4-g32": "quantize --method imatrix",
    "rtn int4-g32": "quantize --method rtn",
    "GPTQ int4-g64": "quantize --group 64",
    "GPTQ int4-g192": "quantize --group 192",
    "GPTQ int8-g32": "quantize --bits 8",
    "imatrix int3-g32": "quantize --bits 3 --method imatrix",
    "GPTQ 3 to 8 bits, size of int4-g32": "quantize --target size=116.35MB",
    "GPTQ 3 to 5 bits, size of the recipe": "quantize --target size=107.5MB",
    "50 % zeros and int4-g32 at once": "quantize --sparsity 0.5",
    "SparseGPT 50 %, then GPTQ int4-g32": "prune --method sparsegpt --sparsity 0.5 | quantize",
}


def row(options: str, scratch: Path, windows: int, calibration: Path) -> dict[str, Any]:
    """Make one row's model and file, and measure them."""
    made: dict[str, Any] = {}
    model = MODEL
    for number, step in enumerate(options.split(" | ") if "quantize" in options else ()):
        source = model
        model = str(scratch / f"folder{number}")
        done = run([SECATEUR, *step.split(), source, "-o", model, "--calib", str(calibration), "--json"])
        made = {
            "seconds": made.get("seconds", 0) + done.seconds,
            "peak_mb": max(made.get("peak_mb", 0), done.peak_mb),
            "bits_per_weight": done.body.get("bits_per_weight", made.get("bits_per_weight")),
            "folder_bytes": done.body["bytes"],
        }
    if options:
        kind = options.split() if options.startswith("export") else ["export"]
        file = run([SECATEUR, *kind, model, "-o", str(scratch / "model.gguf"), "--json"]).body
        made |= {"file_bytes": file["bytes"], "kl_in_llama_cpp": file["kl"]}
    judged = str(scratch / "model.gguf") if options.startswith("export") else model
    return made | {"windows": windows, "perplexity": perplexity(judged, windows)}


def main() -> None:
    """Measure every row that has not been measured yet and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", action="append", choices=ROWS)
    parser.add_argument("--jsonl", type=Path, help="where every finished row is added")
    parser.add_argument("--calib", type=Path, default=CALIBRATION)
    parser.add_argument("--windows", type=int, default=20)
    options = parser.parse_args()
    found = measured(
        options.only or ROWS,
        options.jsonl,
        lambda name, scratch: row(ROWS[name], scratch, options.windows, options.calib),
    )
    print(
        table(
            ["weights", "bits", "GGUF MB", "perplexity", "windows", "seconds", "KL in llama.cpp"],
            [[name, *_figures(line)] for name, line in found.items()],
        )
    )


def _figures(line: dict[str, Any]) -> list[str]:
    def shown(key: str, form: str, scale: float = 1) -> str:
        return f"{line[key] / scale:{form}}" if line.get(key) is not None else ""

    return [
        shown("bits_per_weight", ".3f"),
        shown("file_bytes", ".1f", 1e6),
        shown("perplexity", ".3f"),
        str(line["windows"]),
        shown("seconds", ".0f"),
        shown("kl_in_llama_cpp", ".1e"),
    ]


if __name__ == "__main__":
    main()
