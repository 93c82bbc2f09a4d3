"""The native backend beside llama.cpp.

Decode speed in turns, one thread, and the bandwidth of memory in the same turns.

`--prepare DIR` writes SmolLM2-135M in every form (minutes), `--run DIR` measures it, and `--large` a Llama of
random weights with the widths of TinyLlama-1.1B (nothing else should run meanwhile). What is timed does not
depend on which weights are zero, so the smaller half or more of each matrix is. `--divergence DIR`, after
`--prepare DIR`, tells how far predictions are from those of float32; for one row it rounds a model to 8 bits
by GPTQ.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from contextlib import ExitStack
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from common import CALIBRATION, TEST_TEXT, table
from secateur.calibrate.calibration import Calibration
from secateur.calibrate.text import read_text
from secateur.calibrate.text import windows as cut
from secateur.core.context import Settings
from secateur.core.progress import Silent
from secateur.device.synthetic_gguf import Synthetic
from secateur.model.handle import open_model
from secateur.pipeline.evaluate.native_model import NativeOptions
from secateur.pipeline.evaluate.native_quality import measure_natively
from secateur.pipeline.export.gguf import export
from secateur.pipeline.quantize.quantize import Quantization, quantize
from secateur.runtime.isolated import Isolated
from secateur.runtime.memory_stream import SIZE, Stream
from secateur.runtime.native import About, Native
from secateur.runtime.timed_turns import Speed, Spread, ratios, take_turns
from secateur_runtime.decoder.block_shape import BlockShape
from secateur_runtime.decoder.native_decoder import LINEARS, BlockWeights, Decoder, Weights
from secateur_runtime.kernels.bitmask import Packed, pack
from secateur_runtime.kernels.kernel_weight import Weight
from secateur_runtime.kernels.library import kernels
from secateur_runtime.kernels.quantized import Codes, Grid
from secateur_runtime.kernels.thread_pool import ThreadPool

SMALL = "smollm2-135m"
SHAPE = Synthetic(kind="q8_0", layers=22, hidden=2048, inner=5632, heads=32, kv_heads=4, vocabulary=32000)
SPARSITIES = (0.5, 0.6)
FILES = ("f16", "q8_0", "q4_0")
Row = tuple[str, str, str]
"""Backend, file or folder, type."""


def prepare(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for kind in FILES:
        export(SMALL, folder / f"{kind}.gguf", kind=kind, verify=False, overwrite=True)
    for sparsity in (0.0, *SPARSITIES):
        pruned_folder(folder, sparsity)


def pruned_folder(folder: Path, sparsity: float) -> Path:
    """Return the folder of SmolLM2-135M in bfloat16 with that share of zeros, written unless it is there."""
    out = folder / f"{sparsity:.0%}"
    if not (out / "model.safetensors").exists():
        save_pruned(open_model(SMALL).source, out, sparsity)
    return out


def save_pruned(source: Any, out: Path, sparsity: float) -> None:
    """Write a bfloat16 folder whose matrices inside blocks have that share of zeros, the smallest."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text(json.dumps(source.config))
    tensors = {}
    for name in source.tensors:
        weight = source.read(name).to(torch.bfloat16)
        if sparsity and weight.dim() == 2 and ".layers." in name:
            pruned(weight, sparsity)
        tensors[name] = weight
    save_file(tensors, out / "model.safetensors")


def pruned(weight: torch.Tensor, sparsity: float) -> torch.Tensor:
    """Make the smallest weights zero, by a threshold read off a sample."""
    size = weight.abs().float()
    weight[size < size.flatten()[:: max(1, size.numel() // 100_000)].quantile(sparsity)] = 0
    return weight


def rows_of(folder: Path) -> list[Row]:
    """Return what is timed: the whole model in every type, then pruned ones, then files in llama.cpp."""
    whole = [("native", str(folder / "0%"), kind) for kind in ("bf16", "int8", "int4")]
    fewer = [
        ("native", str(folder / f"{sparsity:.0%}"), kind)
        for kind in ("sparse-bf16", "sparse-int8")
        for sparsity in SPARSITIES
    ]
    return [*whole, *fewer, *(("llama.cpp", str(folder / f"{kind}.gguf"), kind) for kind in FILES)]


def divergences(folder: Path, windows: int) -> None:
    """Print the divergence of natively run models from their float32 originals.

    windows: number of windows of 512 tokens of the test text.
    """
    eight = folder / "gptq8"
    half = folder / f"{SPARSITIES[0]:.0%}"
    if not eight.exists():
        quantize(
            SMALL,
            eight,
            Quantization(bits=8, group=64),
            calibration=Calibration(text=str(CALIBRATION)),
            settings=Settings(arithmetic="float32"),
        )
    rows = [
        (SMALL, "bf16", SMALL),
        (SMALL, "int8", SMALL),
        (str(eight), "int8", SMALL),
        (str(half), "sparse-int8", str(half)),
    ]
    tokens = cut(read_text(str(TEST_TEXT)), open_model(SMALL).source.tokenizer(), 512, windows)
    found = []
    for model, kind, reference in rows:
        quality = measure_natively(
            open_model(model), NativeOptions(kind=kind), tokens, Silent(), open_model(reference).stream()
        )
        found.append(
            {
                "model": Path(model).name,
                "type": kind,
                "of": Path(reference).name,
                "kl": quality.kl,
                "agreement": quality.agreement,
            }
        )
        print(json.dumps(found[-1]), flush=True)
    print(
        table(
            ["model", "type", "beside float32 of", "KL, nats a token", "same likeliest token"],
            [divergence_row(one) for one in found],
        ),
        flush=True,
    )


def divergence_row(one: dict[str, Any]) -> list[str]:
    return [one["model"], one["type"], one["of"], f"{one['kl']:.2e}", f"{one['agreement']:.1%}"]


def measure_small(folder: Path, threads: int, prompt: int, tokens: int, repeat: int) -> dict[str, Any]:
    rows = rows_of(folder)
    with ExitStack() as stack:
        backends = {name(row): stack.enter_context(opened(row, threads, prompt + tokens)) for row in rows}
        return measured(
            SMALL, backends, {name(row): Path(row[1]) for row in rows}, threads, prompt, tokens, repeat
        )


def measured(
    title: str,
    backends: dict[str, Any],
    files: dict[str, Path],
    threads: int,
    prompt: int,
    tokens: int,
    repeat: int,
) -> dict[str, Any]:
    memory = Stream(ThreadPool(library(), threads))
    prompts = [[5 * index % 300 for index in range(prompt)]] * len(backends)
    *speeds, read = take_turns([*backends.values(), memory], [*prompts, [0]], tokens, repeat, Silent())
    bandwidth = [SIZE * one / (tokens - 1) for one in read.decode]
    by_name = dict(zip(backends, speeds, strict=True))
    told = {
        label: backend.about() if label.startswith("native") else None for label, backend in backends.items()
    }
    found = {
        label: figures(speed, told[label], bandwidth, files.get(label)) for label, speed in by_name.items()
    }
    show(found, by_name, bandwidth, title)
    return found


def library() -> Any:
    found = kernels()
    assert found is not None
    return found


def measure_large(threads: int, prompt: int, tokens: int, repeat: int) -> dict[str, Any]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        SHAPE.write(folder / "q8_0.gguf")
        backends: dict[str, Any] = {
            "llama.cpp q8_0": stack.enter_context(
                opened(("llama.cpp", str(folder / "q8_0.gguf"), "q8_0"), threads, prompt + tokens)
            )
        }
        for sparsity in (0.0, *SPARSITIES):
            backends["native int8" if not sparsity else f"native sparse-int8 {sparsity:.0%} zeros"] = (
                synthetic(sparsity, threads)
            )
        return measured(
            "1.1B", backends, {"llama.cpp q8_0": folder / "q8_0.gguf"}, threads, prompt, tokens, repeat
        )


def synthetic(sparsity: float, threads: int) -> Native:
    """Return a model of the shape `SHAPE`, a matrix of each shape drawn once and copied for every block."""
    names = dict(
        zip(
            ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"),
            LINEARS,
            strict=True,
        )
    )
    drawn = {names[stored]: random_codes(shape, sparsity) for stored, shape in SHAPE.shapes.items()}
    forms: dict[str, Codes | Packed] = {
        key: pack(codes) if sparsity else codes for key, codes in drawn.items()
    }
    ones = np.ones(SHAPE.hidden, np.float32)
    shape = BlockShape(SHAPE.heads, SHAPE.kv_heads, SHAPE.head_dim, SHAPE.inner)
    blocks = [
        BlockWeights(
            shape=shape,
            vectors={"attn_norm": ones, "ffn_norm": ones},
            matrices={key: copied(one) for key, one in forms.items()},
        )
        for _ in range(SHAPE.layers)
    ]
    head = Weight(random_codes((SHAPE.vocabulary, SHAPE.hidden), 0.0))
    frequencies = (10000.0 ** (-np.arange(0, SHAPE.head_dim, 2) / SHAPE.head_dim)).astype(np.float32)
    weights = Weights(
        embed=head,
        head=head,
        final_norm=ones,
        epsilon=1e-5,
        frequencies=frequencies,
        scale=1.0,
        blocks=tuple(blocks),
    )
    return Native(Decoder(library(), weights, ThreadPool(library(), threads)))


def random_codes(shape: tuple[int, ...], sparsity: float) -> Codes:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 30
    weight = pruned(weight, sparsity) if sparsity else weight
    return Codes(
        Grid(bits=8, group=shape[1]),
        weight.clamp(-127, 127).round().to(torch.int8),
        torch.full((shape[0], 1), 1e-3).half(),
    )


def copied(form: Codes | Packed) -> Weight:
    """Return a weight with memory of its own."""
    return Weight(
        replace(
            form,
            **{
                field.name: part.clone()
                for field in fields(form)
                if isinstance(part := getattr(form, field.name), torch.Tensor)
            },
        )
    )


def opened(row: Row, threads: int, context: int) -> Isolated:
    backend, path, kind = row
    if backend == "native":
        return Isolated(
            backend,
            "secateur.pipeline.evaluate.native_model:native_backend",
            {"model": path, "kind": kind, "threads": threads},
        )
    return Isolated(
        backend, "secateur.runtime.llamacpp:LlamaCpp", {"path": path, "context": context, "threads": threads}
    )


def name(row: Row) -> str:
    backend, path, kind = row
    return f"{backend} {kind}" + (f" {Path(path).name} zeros" if kind.startswith("sparse") else "")


def figures(speed: Speed, told: About | None, bandwidth: list[float], path: Path | None) -> dict[str, Any]:
    size = told.read if told else path.stat().st_size if path else 0
    share = ratios([size * one for one in speed.decode], bandwidth)
    kinds = sorted({kind for *_, kind, _ in told.kinds}) if told else []
    return {
        "bytes": size,
        "decode": speed.decode,
        "prompt": speed.prompt,
        "share": share.median,
        "kinds": kinds,
    }


def show(found: dict[str, Any], speeds: dict[str, Speed], bandwidth: list[float], title: str) -> None:
    bases = ["native bf16", "native int8", "llama.cpp f16", "llama.cpp q8_0", "llama.cpp q4_0"]
    bases = [base for base in bases if base in found]
    lines = []
    for label, one in found.items():
        by = [ratios(speeds[label].decode, speeds[base].decode) for base in bases]
        cells = [
            label,
            f"{one['bytes'] / 1e6:.0f}",
            text(Spread.of(one["decode"]), ".1f"),
            f"{statistics.median(one['prompt']):.0f}",
        ]
        lines.append([*cells, f"{one['share']:.0%}", *(text(each, ".2f") for each in by)])
    print(f"\n{title}: memory is read at {text(Spread.of([each / 1e9 for each in bandwidth]), '.1f')} GB/s\n")
    print(
        table(
            [
                "",
                "MB a token",
                "decode tokens/s",
                "prompt tokens/s",
                "of bandwidth",
                *(f"by {base}" for base in bases),
            ],
            lines,
        ),
        flush=True,
    )


def text(spread: Spread, form: str) -> str:
    return f"{spread.median:{form}} ({spread.low:{form}}-{spread.high:{form}})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prepare", type=Path)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--divergence", type=Path)
    parser.add_argument(
        "--windows", type=int, default=4, help="Windows of 512 tokens that divergence is measured on."
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--prompt", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=33)
    parser.add_argument("--repeat", type=int, default=5)
    given = parser.parse_args()
    if given.prepare:
        prepare(given.prepare)
    if given.run:
        print(
            json.dumps(measure_small(given.run, given.threads, given.prompt, given.tokens, given.repeat)),
            flush=True,
        )
    if given.divergence:
        divergences(given.divergence, given.windows)
    if given.large:
        print(
            json.dumps(measure_large(given.threads, given.prompt // 4, given.tokens // 2 + 1, given.repeat)),
            flush=True,
        )


if __name__ == "__main__":
    main()
