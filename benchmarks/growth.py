"""Does memory grow with depth? Prune synthetic Llamas of 15, 30 and 60 blocks of SmolLM2-135M's width.

python benchmarks/growth.py [--repeat 3] [--samples 64]
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
from pathlib import Path

from common import prune, table

WIDTH = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
}


def synthetic(folder: Path, blocks: int) -> Path:
    """Write a random Llama of `blocks` blocks with SmolLM2's tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from secateur.model.formats.open_source import open_source

    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**WIDTH, num_hidden_layers=blocks, tie_word_embeddings=True)).to(
        torch.bfloat16
    )
    model.save_pretrained(folder)
    open_source("smollm2-135m").tokenizer().save_pretrained(folder)
    return folder


def made_apart(folder: Path, blocks: int) -> Path:
    """Make the model in a process of its own, so that this one stays small beside what it measures."""
    maker = multiprocessing.get_context("spawn").Process(target=synthetic, args=(folder, blocks))
    maker.start()
    maker.join()
    return folder


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--samples", type=int, default=64, help="windows of calibration text")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        models = {
            blocks: str(made_apart(Path(scratch) / f"synthetic-{blocks}", blocks)) for blocks in (15, 30, 60)
        }
        runs: dict[int, list[tuple[float, float]]] = {blocks: [] for blocks in models}
        for _ in range(options.repeat):
            for blocks, model in models.items():
                done = prune(
                    Path(scratch) / "out",
                    "--method",
                    "sparsegpt",
                    "--sparsity",
                    "0.5",
                    "--samples",
                    str(options.samples),
                    model=model,
                )
                runs[blocks].append((done.seconds, done.peak_mb))
        for blocks, values in runs.items():
            seconds, peak = zip(*values, strict=True)
            per_block = statistics.median(seconds) / blocks
            rows.append(
                [
                    str(blocks),
                    f"{statistics.median(seconds):.1f} ({min(seconds):.1f}-{max(seconds):.1f})",
                    f"{per_block:.2f}",
                ]
            )
            rows[-1].append(f"{statistics.median(peak):.0f} ({min(peak):.0f}-{max(peak):.0f})")
    print(table(["blocks", "seconds, median (range)", "seconds a block", "peak MB, median (range)"], rows))


if __name__ == "__main__":
    main()
