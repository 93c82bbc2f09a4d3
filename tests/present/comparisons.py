"""A comparison on disk with figures that are easy to check."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from secateur.present.comparison_folder import ComparisonJob, ComparisonRow, RowPart, write_part
from secateur_runtime.record import Record

DIGEST = "sha256:" + "0" * 64
DENSE, Q4 = ComparisonRow("dense", "", "dense"), ComparisonRow("q4_0", "", "quantized")
MAGNITUDE, WANDA = (
    ComparisonRow("magnitude", "ratio=0.2", "magnitude"),
    ComparisonRow("wanda", "ratio=0.2", "unstructured"),
)
WIDTH, DEPTH = (
    ComparisonRow("width", "ratio=0.2", "structured"),
    ComparisonRow("depth:sub-blocks", "ratio=0.2", "structured"),
)
ROWS = (DENSE, Q4, MAGNITUDE, WANDA, WIDTH, DEPTH)
PROTOCOLS = {
    "calibration": {"text": "/some/where/c4.jsonl", "samples": 8, "window": 512, "seed": 0, "digest": DIGEST},
    "quality": {
        "text": "/some/where/wiki.raw",
        "origin": "wiki.raw",
        "digest": DIGEST,
        "window": 1024,
        "count": 4,
        "compute": "float32",
    },
    "speed": {"backends": ["llamacpp"], "threads": 1, "prompt": 64, "tokens": 32, "repeat": 3},
}
_FIGURES: dict[ComparisonRow, dict[str, float]] = {
    DENSE: {
        "weight_bytes": 200e6,
        "file_bytes": 201e6,
        "perplexity": 20.0,
        "next_token_accuracy": 0.4,
        "llamacpp_decode": 50.0,
    },
    Q4: {
        "file_bytes": 80.4e6,
        "perplexity": 21.0,
        "next_token_accuracy": 0.38,
        "llamacpp_decode": 90.0,
        "llamacpp_decode_ratio": 1.8,
    },
    MAGNITUDE: {
        "weight_bytes": 200e6,
        "perplexity": 30.0,
        "next_token_accuracy": 0.32,
        "llamacpp_decode": 50.5,
        "llamacpp_decode_ratio": 1.01,
    },
    WANDA: {
        "weight_bytes": 200e6,
        "perplexity": 22.0,
        "next_token_accuracy": 0.38,
        "llamacpp_decode": 50.0,
        "llamacpp_decode_ratio": 1.0,
    },
    WIDTH: {
        "weight_bytes": 160e6,
        "perplexity": 28.0,
        "next_token_accuracy": 0.34,
        "llamacpp_decode": 60.0,
        "llamacpp_decode_ratio": 1.2,
    },
    DEPTH: {"weight_bytes": 161e6, "perplexity": 45.0, "next_token_accuracy": 0.28},
}


def record(name: str, value: float, protocol: str = "by hand") -> Record:
    return Record(
        name=name,
        value=value,
        unit="share" if "accuracy" in name else "unit",
        protocol=protocol,
        model=DIGEST,
        plan="sha256:1",
    )


def job() -> ComparisonJob:
    return ComparisonJob(
        ref="org/small",
        name="small",
        digest=DIGEST,
        parameters=100_000_000,
        protocols=PROTOCOLS,
        rows=ROWS,
        secateur="0.1.0",
    )


def write(folder: Path) -> Path:
    """Write the comparison; the last row has no speed, because llama.cpp cannot load it."""
    job().write(folder)
    empty = RowPart(source=DIGEST)
    for row, figures in _FIGURES.items():
        made = tuple(record(name, value) for name, value in figures.items() if "bytes" in name)
        quality = tuple(
            record(name, value)
            for name, value in figures.items()
            if name in ("perplexity", "next_token_accuracy")
        )
        speed = tuple(record(name, value) for name, value in figures.items() if name.startswith("llamacpp"))
        removed = ((0.0, 0.5), (1.0, 0.25)) if row.target else ()
        write_part(folder, row, "pruned", replace(empty, records=made, removed=removed))
        write_part(
            folder,
            row,
            "file",
            replace(empty, notes=("not in llama.cpp: <b>no</b> room",) if row == DEPTH else ()),
        )
        write_part(folder, row, "quality", replace(empty, records=quality))
        write_part(folder, row, "speed", replace(empty, records=speed))
    return folder
