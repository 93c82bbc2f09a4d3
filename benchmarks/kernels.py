"""How fast the C kernels multiply beside dense ones, torch and llama.cpp.

One matrix with one input, as in decoding, in turns.

    python benchmarks/kernels.py [--side 4096] [--megabytes 640] [--rounds 7] [--threads 1 2] [--large-pages]
    [--jsonl out/kernels.jsonl]

Each contender has as many copies of its weights as take `--megabytes`, and goes through all of them before
the next one's turn, so that no cache of a core holds any. A server's last-level cache may be shared by many
machines: choose a size far beyond what `lscpu` says of it. Each round ends with a plain read of as many
bytes, by as many threads: the stream that the shares refer to. llama.cpp takes part by its own functions for
products of vectors, which the library of the package xllamacpp exports.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from common import table

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.secateur_runtime.kernels.products import multiply

from secateur_runtime.kernels.bitmask import Packed, pack
from secateur_runtime.kernels.build import find_compiler
from secateur_runtime.kernels.kernel_weight import Weight, together
from secateur_runtime.kernels.library import kernels
from secateur_runtime.kernels.quantized import Codes, Grid
from secateur_runtime.kernels.thread_pool import ThreadPool

Stored = Tensor | Codes | Packed
Copy = Callable[[Tensor], Tensor]
GRIDS = {"int8": Grid(bits=8, group=64), "int4": Grid(bits=4, group=32)}
GGML = {"Q8_0": ("q8_0_q8_0", 34 / 32), "Q4_0": ("q4_0_q8_0", 18 / 32), "F16": ("f16", 2.0)}
_LOOP = """
#include <stdint.h>
#include <stddef.h>
typedef void (*dot_fn)(int, float *, size_t, const void *, size_t, const void *, size_t, int);
typedef struct {
    dot_fn dot;
    int n;
    int64_t rows, step;
    size_t stride;
    const char *w;
    const void *x;
    float *y;
} job;
void rows(void *arg, int64_t part) {
    job *j = arg;
    int64_t end = (part + 1) * j->step < j->rows ? (part + 1) * j->step : j->rows;
    for (int64_t r = part * j->step; r < end; r++)
        j->dot(j->n, j->y + r, 0, j->w + r * j->stride, 0, j->x, 0, 1);
}
"""


class Job(ctypes.Structure):
    """`job` of the loop above."""

    _fields_ = (
        *(("dot", ctypes.c_void_p), ("n", ctypes.c_int), ("rows", ctypes.c_int64), ("step", ctypes.c_int64)),
        *(
            ("stride", ctypes.c_size_t),
            ("w", ctypes.c_void_p),
            ("x", ctypes.c_void_p),
            ("y", ctypes.c_void_p),
        ),
    )


@dataclass
class Contender:
    """Something that multiplies. products: one for each copy of the weights, called with a pool.

    nbytes: of one copy.
    """

    name: str
    baseline: str
    nbytes: int
    products: list[Callable[[ThreadPool], object]]


def random_weight(kind: str, side: int, share: float) -> Stored:
    draw = torch.Generator().manual_seed(0)
    keep = torch.rand(side, side, generator=draw) >= share
    if kind == "bf16":
        weight: Tensor | Codes = torch.randn(side, side, generator=draw).bfloat16() * keep
    else:
        grid = GRIDS[kind]
        values = torch.randint(grid.lowest, grid.highest + 1, (side, side), generator=draw, dtype=torch.int8)
        # A code that is zero by chance would be left out too.
        weight = Codes(
            grid,
            torch.where(values == 0, 1, values) * keep,
            torch.full((side, side // grid.group), 0.01, dtype=torch.float16),
        )
    return pack(weight) if share else weight


def copied(weight: Stored, copy: Copy) -> Stored:
    if isinstance(weight, Tensor):
        return copy(weight)
    if isinstance(weight, Codes):
        return replace(weight, values=copy(weight.values), scales=copy(weight.scales))
    return replace(
        weight,
        mask=copy(weight.mask),
        values=copy(weight.values),
        scales=None if weight.scales is None else copy(weight.scales),
    )


def ours(library: ctypes.CDLL, kind: str, side: int, share: float, total: float, copy: Copy) -> Contender:
    stored = random_weight(kind, side, share)
    x = torch.randn(1, side)
    first = Weight(stored)
    weights = [
        Weight(copied(stored, copy)),
        *(Weight(copied(stored, copy)) for _ in range(int(total / first.nbytes))),
    ]
    name = f"{kind} {share:.0%}" if share else f"{kind} dense"
    return Contender(
        name,
        f"{kind} dense",
        first.nbytes,
        [lambda pool, weight=weight: multiply(library, weight, x, pool) for weight in weights],
    )


def of_torch(side: int, total: float, copy: Copy) -> Contender:
    weight = torch.randn(side, side).bfloat16()
    x = torch.randn(1, side).bfloat16()
    copies = [copy(weight) for _ in range(int(total / weight.nbytes) + 1)]
    return Contender(
        "torch bf16",
        "bf16 dense",
        weight.nbytes,
        [lambda _, weight=weight: torch.nn.functional.linear(x, weight) for weight in copies],
    )


def of_llamacpp(
    library: ctypes.CDLL, folder: Path, name: str, side: int, total: float, copy: Copy
) -> Contender:
    """llama.cpp's own product of vectors, row by row, on our pool.

    Its inputs are in its own 8-bit blocks already.
    """
    import xllamacpp.xllamacpp as extension

    ggml = ctypes.CDLL(extension.__file__)
    dot, bytes_each = GGML[name]
    ggml.ggml_cpu_init()
    source = folder / "rows.c"
    built = folder / "rows.so"
    source.write_text(_LOOP)
    subprocess.run([*find_compiler(), "-O2", "-fPIC", "-shared", str(source), "-o", str(built)], check=True)
    loop = ctypes.cast(ctypes.CDLL(str(built)).rows, ctypes.c_void_p)
    nbytes = int(side * side * bytes_each)
    block = 34 if name == "Q8_0" else 18
    # The scales must be plain numbers, or the processor may take longer.
    random = torch.randint(0, 256, (nbytes,), dtype=torch.uint8)
    weight = (
        torch.randn(side, side).half().view(torch.uint8).flatten()
        if name == "F16"
        else _scaled(random, block)
    )
    x = (
        torch.randn(side).half()
        if name == "F16"
        else _scaled(torch.randint(0, 256, (side // 32 * 34,), dtype=torch.uint8), 34)
    )
    out = torch.empty(side)
    function = ctypes.cast(getattr(ggml, f"ggml_vec_dot_{dot}"), ctypes.c_void_p)
    parts = 8
    library.sec_pool_run.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)

    def product(pool: ThreadPool, own: Tensor) -> None:
        job = Job(
            function,
            side,
            side,
            -(-side // parts),
            nbytes // side,
            own.data_ptr(),
            x.data_ptr(),
            out.data_ptr(),
        )
        library.sec_pool_run(pool.pointer, loop, ctypes.byref(job), parts)

    copies = [copy(weight) for _ in range(int(total / nbytes) + 1)]
    return Contender(
        f"llama.cpp {name}",
        "bf16 dense" if name == "F16" else "int8 dense",
        nbytes,
        [lambda pool, own=own: product(pool, own) for own in copies],
    )


def _scaled(blocks: Tensor, size: int) -> Tensor:
    blocks.view(-1, size)[:, :2] = torch.tensor([0.01], dtype=torch.float16).view(torch.uint8)
    return blocks


def turn(contender: Contender, pool: ThreadPool) -> float:
    """Return seconds of one product, over all copies."""
    started = time.perf_counter()
    for product in contender.products:
        product(pool)
    return (time.perf_counter() - started) / len(contender.products)


def measure(
    library: ctypes.CDLL, contenders: list[Contender], count: int, rounds: int, total: float, copy: Copy
) -> list[dict[str, object]]:
    """Return a record for each contender after `rounds` rounds with `count` threads and one warm-up round."""
    torch.set_num_threads(count)
    data = copy(torch.ones(int(total), dtype=torch.uint8))
    seconds: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    stream: list[float] = []
    pool = ThreadPool(library, count)
    for _ in range(rounds + 1):
        for contender in contenders:
            seconds[contender.name].append(turn(contender, pool))
        started = time.perf_counter()
        library.sec_stream(pool.pointer, data.data_ptr(), data.nbytes)
        stream.append(data.nbytes / (time.perf_counter() - started))
    rates = stream[1:]
    return [
        told(contender, {name: row[1:] for name, row in seconds.items()}, rates, count)
        for contender in contenders
    ]


def told(
    contender: Contender, seconds: dict[str, list[float]], stream: list[float], count: int
) -> dict[str, object]:
    mine = seconds[contender.name]
    base = seconds[contender.baseline]
    gains = sorted(other / own for other, own in zip(base, mine, strict=True))
    shares = sorted(contender.nbytes / own / rate for own, rate in zip(mine, stream, strict=True))
    return {
        "name": contender.name,
        "threads": count,
        "bytes": contender.nbytes,
        "microseconds": round(statistics.median(mine) * 1e6, 1),
        "against": contender.baseline,
        "gain": round(statistics.median(gains), 3),
        "gain_range": [round(gains[0], 3), round(gains[-1], 3)],
        "share_of_stream": round(statistics.median(shares), 3),
        "stream_GB_s": round(statistics.median(stream) / 1e9, 1),
    }


def families(
    library: ctypes.CDLL, folder: Path, side: int, total: float, copy: Copy
) -> list[Callable[[], list[Contender]]]:
    """Return two groups of contenders, each made when its turn comes, so that memory holds one at a time."""
    return [
        lambda: [
            *(ours(library, "bf16", side, share, total, copy) for share in (0.0, 0.5, 0.6, 0.7)),
            of_torch(side, total, copy),
            of_llamacpp(library, folder, "F16", side, total, copy),
        ],
        lambda: [
            *(ours(library, "int8", side, share, total, copy) for share in (0.0, 0.5, 0.6, 0.7)),
            *(ours(library, "int4", side, share, total, copy) for share in (0.0, 0.5)),
            *(of_llamacpp(library, folder, name, side, total, copy) for name in ("Q8_0", "Q4_0")),
        ],
    ]


def main() -> None:
    """Measure all and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--megabytes", type=float, default=640)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--jsonl", type=Path)
    parser.add_argument(
        "--large-pages",
        action="store_true",
        help="ask the system for large pages, for every contender and for the stream",
    )
    given = parser.parse_args()
    copy: Copy = (lambda tensor: together([tensor])[0]) if given.large_pages else torch.clone
    library = kernels()
    if library is None:
        raise SystemExit("no kernels here")
    records = []
    with tempfile.TemporaryDirectory() as folder:
        for made in families(library, Path(folder), given.side, given.megabytes * 1e6, copy):
            contenders = made()
            for count in given.threads:
                records += measure(library, contenders, count, given.rounds, given.megabytes * 1e6, copy)
            del contenders
    if given.jsonl:
        given.jsonl.parent.mkdir(parents=True, exist_ok=True)
        given.jsonl.write_text(
            "".join(json.dumps({"isa": library.sec_isa().decode(), **record}) + "\n" for record in records)
        )
    rows = [[str(record[key]) for key in records[0]] for record in records]
    print(table(list(records[0]), rows))


if __name__ == "__main__":
    main()
