"""One-shot pruning of SmolLM2-135M against llm-compressor and ModelOpt.

Same windows, same protocol, interleaved.

    benchmarks/peers/setup.sh
    .cache/peers-venv/bin/python benchmarks/peers/make_inputs.py --out out/peers
    python benchmarks/oneshot.py --peers out/peers [--repeat 2] [--only sparsegpt-50] [--json results.json]

Every cell is its own process. `seconds` is wall time of the whole process (load, prune, save; ours also
reloads and compares), `peak` its peak resident memory. Perplexities of both sides are measured by `secateur
eval`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from common import ROOT, Run, perplexity, prune, run, table

PEERS = ROOT / "benchmarks" / "peers"
PEER_PYTHON = ROOT / ".cache" / "peers-venv" / "bin" / "python"
AMOUNT = {
    "50": ("--sparsity", "0.5"),
    "60": ("--sparsity", "0.6"),
    "70": ("--sparsity", "0.7"),
    "2:4": ("--pattern", "2:4"),
}
# The peers calibrate and store in float32. Where nothing answers for a wrong choice, what a method gives
# hangs on that.
SAME_ARITHMETIC = {"wanda": ("--dtype", "float32", "--compute", "float32")}
OURS = [
    "wanda-50",
    "sparsegpt-50",
    "wanda-2:4",
    "sparsegpt-2:4",
    "magnitude-50",
    "ria-50",
    "alps-50",
    "alps-2:4",
    "sparsegpt-60",
    "sparsegpt-70",
]
THEIRS = {
    "llmcompressor": ["wanda-50", "sparsegpt-50", "wanda-2:4", "sparsegpt-2:4"],
    "modelopt": ["sparsegpt-2:4"],
}


@dataclass
class Cell:
    """All runs of one method by one tool."""

    tool: str
    method: str
    runs: list[Run] = field(default_factory=list)
    perplexity: float | None = None

    def row(self) -> list[str]:
        """Return the cell as a row of the table."""
        seconds = [done.seconds for done in self.runs]
        peak = max(done.peak_mb for done in self.runs)
        spread = f" ({min(seconds):.0f}-{max(seconds):.0f})" if len(seconds) > 1 else ""
        return [
            self.tool,
            self.method,
            f"{self.perplexity:.2f}",
            f"{statistics.median(seconds):.0f}{spread}",
            f"{peak:.0f}",
        ]


def one_run(cell: Cell, inputs: Path, out: Path) -> None:
    """Run one cell once; the first run is evaluated too."""
    name, _, amount = cell.method.rpartition("-")
    if cell.tool == "secateur":
        cell.runs.append(prune(out, "--method", name, *AMOUNT[amount], *SAME_ARITHMETIC.get(name, ())))
    else:
        script = str(PEERS / f"prune_{cell.tool}.py")
        arguments = [
            "--model",
            str(inputs / "model"),
            "--tokens",
            str(inputs / "tokens.safetensors"),
            "--method",
            cell.method,
            "--out",
            str(out),
        ]
        cell.runs.append(run([str(PEER_PYTHON), script, *arguments]))
    if cell.perplexity is None:
        cell.perplexity = perplexity(out)


def main() -> None:
    """Run ours and theirs of one method next to each other, method by method, and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--peers", type=Path, help="folder made by benchmarks/peers/make_inputs.py; without it only ours run"
    )
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--only", action="append", help="methods such as sparsegpt-2:4")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    cells = []
    for method in options.only or OURS:
        tools = [
            "secateur",
            *(tool for tool, methods in THEIRS.items() if options.peers and method in methods),
        ]
        cells.append([Cell(tool, method) for tool in tools])
    with tempfile.TemporaryDirectory() as scratch:
        for group in cells:
            for _ in range(options.repeat):
                for cell in group:
                    one_run(
                        cell, options.peers, Path(scratch) / f"{cell.tool}-{cell.method.replace(':', 'of')}"
                    )
                    print("|", " | ".join(cell.row()), "|", flush=True)
    flat = [cell for group in cells for cell in group]
    print(
        table(
            ["tool", "method", "perplexity", "seconds", "peak MB"],
            [["dense", "", f"{perplexity('smollm2-135m'):.3f}", "", ""], *(cell.row() for cell in flat)],
        )
    )
    if options.json:
        figures = [
            {
                "tool": c.tool,
                "method": c.method,
                "perplexity": c.perplexity,
                "seconds": [r.seconds for r in c.runs],
                "peak_mb": [r.peak_mb for r in c.runs],
            }
            for c in flat
        ]
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
