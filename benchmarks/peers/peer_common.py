"""What every peer script shares: its arguments, the token file, and the one JSON line it prints."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def make_parser(description: str, methods: list[str]) -> argparse.ArgumentParser:
    """The command line that all peer scripts understand."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--model", type=Path, required=True, help="Hugging Face folder")
    parser.add_argument("--tokens", type=Path, required=True, help="int64 windows, .safetensors or .npy")
    parser.add_argument("--method", choices=methods, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder for the pruned model")
    parser.add_argument("--dtype", choices=list(DTYPES), default="fp32", help="default: fp32")
    parser.add_argument("--batch-size", type=int, default=1, help="windows per forward pass")
    parser.add_argument("--damp", type=float, help="SparseGPT damping (default: the tool's own)")
    return parser


def load_tokens(path: Path) -> torch.Tensor:
    """Read the calibration windows as an int64 tensor of [windows, length]."""
    if path.suffix == ".npy":
        import numpy

        tokens = torch.from_numpy(numpy.load(path))
    else:
        (tokens,) = load_file(path).values()
    if tokens.dim() != 2 or tokens.dtype != torch.int64:
        raise ValueError(f"{path}: want int64 [windows, length], got {tokens.dtype} {tokens.shape}")
    return tokens


def peak_rss_mb() -> float:
    """Peak resident memory of this process so far, in MiB (Linux counts ru_maxrss in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@contextlib.contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Keep the tools' own chatter off stdout, which carries the JSON line alone.

    At the file-descriptor level, since loggers hold on to the stdout they found at import.
    """
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(saved, 1)
        os.close(saved)


def run(
    tool: str,
    version: str,
    args: argparse.Namespace,
    prune: Callable[[PreTrainedModel, torch.Tensor], PreTrainedModel],
    started: float,
    save_kwargs: dict[str, bool] | None = None,
) -> None:
    """Load the model, time `prune` on it, save the result, and print the JSON line.

    `started` is the `time.perf_counter()` taken before the heavy imports, so that `seconds_wall`
    covers imports, load, prune and save; `seconds` covers the prune call alone.
    """
    with stdout_to_stderr():
        tokens = load_tokens(args.tokens)
        model = AutoModelForCausalLM.from_pretrained(args.model, dtype=DTYPES[args.dtype])
        model.eval()
        head = head_digest(model)
        begin = time.perf_counter()
        model = prune(model, tokens)
        seconds = time.perf_counter() - begin
        peak_prune = peak_rss_mb()
        model.save_pretrained(args.out, **(save_kwargs or {}))
        AutoTokenizer.from_pretrained(args.model).save_pretrained(args.out)
    print(
        json.dumps(
            {
                "tool": tool,
                "version": version,
                "method": args.method,
                "seconds": round(seconds, 2),
                "seconds_wall": round(time.perf_counter() - started, 2),
                "peak_rss_mb": round(peak_rss_mb(), 1),
                "peak_rss_prune_mb": round(peak_prune, 1),
                "dtype": args.dtype,
                "batch_size": args.batch_size,
                "damp": args.damp,
                "threads": torch.get_num_threads(),
                "tokens": list(tokens.shape),
                "sparsity": round(linear_sparsity(model), 6),
                "head_unchanged": head_digest(model) == head,
                "out": str(args.out),
            }
        )
    )


def head_digest(model: PreTrainedModel) -> str:
    """Digest of the output head, which no method here may touch.

    Where the head is tied to the embedding, pruning one prunes the other.
    """
    weight = model.get_output_embeddings().weight.detach()
    return hashlib.blake2b(weight.view(torch.uint8).numpy()).hexdigest()


def linear_sparsity(model: PreTrainedModel) -> float:
    """Fraction of exact zeros over the weights of all linear layers apart from the head."""
    head = model.get_output_embeddings()
    weights = [
        module.weight
        for module in model.modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    ]
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    return zeros / sum(weight.numel() for weight in weights)
