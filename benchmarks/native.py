"""The native backend beside llama.cpp: decode speed in turns, one thread, and the bandwidth of memory in the same turns.

`--prepare DIR` writes the models (minutes), `--run DIR` measures them (nothing else should run meanwhile). What is timed does not depend on which weights
are zero, so the smaller half or more of each matrix is. Models: SmolLM2-135M, and a Llama of random weights with the widths of TinyLlama-1.1B.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from common import table
from secateur.core.progress import Silent
from secateur.device.synthetic import Synthetic
from secateur.model.opened import open_model
from secateur.pipeline.export import export
from secateur.runtime.bench import Speed, Spread, ratios, take_turns
from secateur.runtime.isolated import Isolated
from secateur.runtime.stream import SIZE, Stream
from secateur.sparse.library import kernels
from secateur.sparse.pool import Pool

SMALL, LARGE = "smollm2-135m", "1b"
SHAPE = Synthetic(kind="q8_0", layers=22, hidden=2048, inner=5632, heads=32, kv_heads=4, vocabulary=32000)
SPARSITIES = (0.5, 0.6, 0.7)
FILES = {SMALL: ("f16", "q8_0", "q4_0"), LARGE: ("q8_0", "q4_0")}
Row = tuple[str, str, str]
"""Backend, file or folder, type."""


def prepare(folder: Path, which: str) -> None:
    place = folder / which
    place.mkdir(parents=True, exist_ok=True)
    for kind in FILES[which]:
        if which == SMALL:
            export(SMALL, place / f"{kind}.gguf", kind=kind, verify=False, overwrite=True)
        else:
            Synthetic(**{**{field: getattr(SHAPE, field) for field in SHAPE.__slots__}, "kind": kind}).write(place / f"{kind}.gguf")
    source = open_model(SMALL if which == SMALL else str(place / "q8_0.gguf")).source
    for sparsity in (0.0, *SPARSITIES):
        save_pruned(source, place / f"{sparsity:.0%}", sparsity)


def save_pruned(source: Any, out: Path, sparsity: float) -> None:
    """Write a bfloat16 folder whose matrices inside blocks have that share of zeros, the smallest or, of random weights, any."""
    out.mkdir(exist_ok=True)
    (out / "config.json").write_text(json.dumps(source.config))
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name in source.tensors:
        weight = source.read(name).to(torch.bfloat16)
        if sparsity and weight.dim() == 2 and ".layers." in name:
            # Rows of the synthetic model repeat, so that ties must be broken.
            order = weight.abs().float() + 1e-6 * torch.rand(weight.shape, generator=generator)
            weight[order < order.flatten()[:: max(1, order.numel() // 100_000)].quantile(sparsity)] = 0
        tensors[name] = weight
    save_file(tensors, out / "model.safetensors")


def rows_of(place: Path, which: str) -> Iterator[Row]:
    """Yield what is timed: the whole model in every type first, then pruned ones."""
    for kind in ("bf16", "int8", "int4") if which == SMALL else ("int8", "int4"):
        yield "native", str(place / "0%"), kind
    for kind in ("sparse-bf16", "sparse-int8") if which == SMALL else ("sparse-int8",):
        for sparsity in SPARSITIES if which == SMALL else SPARSITIES[:2]:
            yield "native", str(place / f"{sparsity:.0%}"), kind
    for kind in FILES[which]:
        yield "llama.cpp", str(place / f"{kind}.gguf"), kind


def measure(folder: Path, which: str, threads: int, prompt: int, tokens: int, repeat: int) -> dict[str, Any]:
    rows = list(rows_of(folder / which, which))
    library = kernels()
    assert library is not None
    with ExitStack() as stack:
        backends: list[Any] = [stack.enter_context(opened(row, threads, prompt + tokens)) for row in rows]
        memory = Stream(Pool(library, threads))
        prompts = [[5 * index % 300 for index in range(prompt)]] * len(rows)
        *speeds, read = take_turns([*backends, memory], [*prompts, [0]], tokens, repeat, Silent())
        told = [backend.about() if row[0] == "native" else None for row, backend in zip(rows, backends, strict=True)]
    bandwidth = [SIZE * one / (tokens - 1) for one in read.decode]
    found = {name(row): figures(speed, one, bandwidth, Path(row[1])) for row, speed, one in zip(rows, speeds, told, strict=True)}
    show(found, {name(row): speed for row, speed in zip(rows, speeds, strict=True)}, bandwidth, which)
    return found


def opened(row: Row, threads: int, context: int) -> Isolated:
    backend, path, kind = row
    if backend == "native":
        return Isolated(backend, "secateur.pipeline.native:native_backend", {"model": path, "kind": kind, "threads": threads})
    return Isolated(backend, "secateur.runtime.llamacpp:LlamaCpp", {"path": path, "context": context, "threads": threads})


def name(row: Row) -> str:
    backend, path, kind = row
    return f"{backend} {kind}" + (f" {Path(path).name} zeros" if kind.startswith("sparse") else "")


def figures(speed: Speed, told: Any, bandwidth: list[float], path: Path) -> dict[str, Any]:
    size = told.read if told else path.stat().st_size
    share = ratios([size * one for one in speed.decode], bandwidth)
    kinds = sorted({kind for *_, kind, _ in told.kinds}) if told else []
    return {"bytes": size, "decode": speed.decode, "prompt": speed.prompt, "share": share.median, "kinds": kinds}


def show(found: dict[str, Any], speeds: dict[str, Speed], bandwidth: list[float], which: str) -> None:
    bases = ["native bf16", "native int8", "llama.cpp f16", "llama.cpp q8_0", "llama.cpp q4_0"]
    bases = [base for base in bases if base in found]
    lines = []
    for label, one in found.items():
        by = [ratios(speeds[label].decode, speeds[base].decode) for base in bases]
        cells = [label, f"{one['bytes'] / 1e6:.0f}", text(Spread.of(one["decode"]), ".1f"), f"{statistics.median(one['prompt']):.0f}"]
        lines.append([*cells, f"{one['share']:.0%}", *(text(each, ".2f") for each in by)])
    print(f"\n{which}: memory is read at {text(Spread.of([each / 1e9 for each in bandwidth]), '.1f')} GB/s\n")
    print(table(["", "MB a token", "decode tokens/s", "prompt tokens/s", "of bandwidth", *(f"by {base}" for base in bases)], lines), flush=True)


def text(spread: Spread, form: str) -> str:
    return f"{spread.median:{form}} ({spread.low:{form}}-{spread.high:{form}})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prepare", type=Path)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--model", choices=(SMALL, LARGE), default=SMALL)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if given.prepare:
        prepare(given.prepare, given.model)
    if given.run:
        found = measure(given.run, given.model, given.threads, given.prompt, given.tokens, given.repeat)
        if given.json:
            given.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
