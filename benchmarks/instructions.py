"""Do all instruction sets keep what a native type promises, and which one is the fastest?

    python benchmarks/instructions.py --out DIR [--rounds 7] [--threads 1] [--older SRC]

SmolLM2-135M in bf16 and in sparse-bf16 with half of its weights zero, by each instruction set that this
processor has: mean KL from the float32 model over `--windows` windows of 512 tokens of the test text, and
tokens per second of decoding and of prompts, in turns. `--older` names the `src` folder of another checkout,
whose `avx512bf16` takes part as one more contender.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from common import TEST_TEXT, table
from native import library, pruned_folder, text
from secateur.core.progress import Silent
from secateur.runtime.isolated import Isolated
from secateur.runtime.timed_turns import Speed, Spread, ratios, take_turns
from secateur_runtime.errors import UsageError
from secateur_runtime.kernels.library import ISA_VARIABLE, ISAS, choose

PROMISE = 1e-4
"""Nats a token that bf16 may lose."""
_DIVERGENCE = """
import json, sys
from secateur.calibrate.text import read_text, windows
from secateur.core.progress import Silent
from secateur.model.handle import open_model
from secateur.pipeline.evaluate.native_model import NativeOptions
from secateur.pipeline.evaluate.native_quality import measure_natively
model, kind, text, count = sys.argv[1:]
tokens = windows(read_text(text), open_model("smollm2-135m").source.tokenizer(), 512, int(count))
opened = open_model(model)
quality = measure_natively(opened, NativeOptions(kind=kind), tokens, Silent(), open_model(model).stream())
print(json.dumps({"kl": quality.kl, "agreement": quality.agreement}))
"""


@dataclass(frozen=True, slots=True)
class Contender:
    """A model folder in one type, by one instruction set of one checkout (empty: this one)."""

    model: str
    kind: str
    isa: str
    checkout: str = ""

    @property
    def label(self) -> str:
        """What the table calls it."""
        return f"{self.kind} {self.isa}{' (older)' if self.checkout else ''}"

    @contextmanager
    def environment(self) -> Iterator[None]:
        """Let children run these instructions from that checkout."""
        before = dict(os.environ)
        os.environ[ISA_VARIABLE] = self.isa
        if self.checkout:
            os.environ["PYTHONPATH"] = self.checkout
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


def usable() -> list[str]:
    """Return the instruction sets of this processor, the portable one left out."""
    found = []
    for isa in ISAS:
        try:
            choose(library(), isa)
        except UsageError:
            continue
        found.append(isa)
    choose(library(), "")
    return [isa for isa in found if isa != "portable" and "emulated" not in isa]


def contenders(folder: Path, older: str) -> list[Contender]:
    """Return every type and instruction set, those of the older checkout last."""
    found = []
    for kind, sparsity in (("bf16", 0.0), ("sparse-bf16", 0.5)):
        model = str(pruned_folder(folder, sparsity))
        found += [Contender(model, kind, isa) for isa in usable()]
        if older and "avx512bf16" in usable():
            found.append(Contender(model, kind, "avx512bf16", older))
    return found


def divergence(one: Contender, windows: int) -> dict[str, float]:
    """Return the mean KL from float32 and the share of equal likeliest tokens."""
    with one.environment():
        command = [sys.executable, "-c", _DIVERGENCE, one.model, one.kind, str(TEST_TEXT), str(windows)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def speeds(rows: list[Contender], threads: int, prompt: int, tokens: int, rounds: int) -> list[Speed]:
    """Return the speed of each, all in turns."""
    with ExitStack() as stack:
        backends = []
        for one in rows:
            with one.environment():
                options = {"model": one.model, "kind": one.kind, "threads": threads}
                made = Isolated(one.label, "secateur.pipeline.evaluate.native_model:native_backend", options)
            backends.append(stack.enter_context(made))
        prompts = [[5 * index % 300 for index in range(prompt)]] * len(rows)
        return take_turns(backends, prompts, tokens, rounds, Silent())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--older", default="")
    parser.add_argument("--windows", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=33)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    rows = contenders(given.out, given.older)
    timed = speeds(rows, given.threads, given.prompt, given.tokens, given.rounds)
    lines = []
    for one, speed in zip(rows, timed, strict=True):
        base = next(
            own for row, own in zip(rows, timed, strict=True) if (row.kind, row.isa) == (one.kind, "avx2")
        )
        lost = divergence(one, given.windows)
        decode = text(Spread.of(speed.decode), ".1f")
        read = text(Spread.of(speed.prompt), ".0f")
        by_decode = text(ratios(speed.decode, base.decode), ".2f")
        by_prompt = text(ratios(speed.prompt, base.prompt), ".2f")
        kept = "yes" if lost["kl"] <= PROMISE else "NO"
        lines.append([one.label, decode, by_decode, read, by_prompt, f"{lost['kl']:.1e}", kept])
    header = [
        "",
        "decode tokens/s",
        "by avx2",
        "prompt tokens/s",
        "by avx2",
        "KL, nats a token",
        f"<= {PROMISE:g}",
    ]
    print(table(header, lines), flush=True)


if __name__ == "__main__":
    main()
