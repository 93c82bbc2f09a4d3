"""Compare a model in the native backend with the whole model in few bits: speed and quality for its bytes."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from secateur.core.progress import Progress, Silent
from secateur.pipeline.bench.bench import Benched, BenchSettings, bench_each, ratio_of
from secateur.pipeline.evaluate.evaluate import evaluate
from secateur.pipeline.evaluate.native_model import NativeOptions
from secateur.pipeline.export.gguf import export
from secateur.runtime.timed_turns import Speed, Spread
from secateur_runtime.record import Record

WHOLE = (
    ("native", "bf16"),
    ("native", "int8"),
    ("native", "int4"),
    ("llamacpp", "q8_0"),
    ("llamacpp", "q4_0"),
)
"""What the whole model is shown as."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationText:
    """What perplexity is measured on, as `pipeline.evaluate` takes it."""

    text: str
    window: int = 2048
    count: int = 20

    def perplexity(self, ref: str, settings: BenchSettings, progress: Progress) -> float:
        """Return the perplexity of a model.

        In the native backend of what really runs; in llama.cpp of the weights of its file, with float32
        products.
        """
        native = (
            NativeOptions(kind=settings.kind, threads=settings.threads)
            if settings.backend == "native"
            else None
        )
        return evaluate(
            ref, text=self.text, window=self.window, count=self.count, native=native, progress=progress
        ).perplexity


@dataclass(frozen=True, slots=True)
class TimedRow:
    """One model in one type.

    bytes: weights as the native backend holds them, or the file. ratio: decode speed of the first row by this
    one's, turn by turn.
    """

    name: str
    benched: Benched
    bytes: int
    decode: Spread
    ratio: Spread
    perplexity: float | None

    def records(self, settings: BenchSettings, text: EvaluationText | None) -> list[Record]:
        """Return the figures as records."""
        said = (
            f"{self.name}, {settings.threads} threads, {settings.prompt} tokens of prompt, {settings.tokens}"
            f" of answer, {settings.repeat} turns"
        )
        values = [
            ("bytes", float(self.bytes), "bytes", said),
            ("decode", self.decode.median, "tokens/s", said),
            ("ratio", self.ratio.median, "ratio", said),
        ]
        if text and self.perplexity is not None:
            values.append(
                (
                    "perplexity",
                    self.perplexity,
                    "perplexity",
                    f"{self.name}, {text.text}, {text.count} windows of {text.window} tokens",
                )
            )
        return [
            Record(name=name, value=value, unit=unit, protocol=protocol, model=self.benched.digest)
            for name, value, unit, protocol in values
        ]


def beside(
    src: str,
    whole: str,
    settings: BenchSettings,
    text: EvaluationText | None = None,
    progress: Progress | None = None,
) -> list[TimedRow]:
    """Return the figures of `src`, then those of `whole` in every type of `WHOLE`, all measured in turns.

    settings: of `src`. text: what perplexity is measured on, None to leave it out.
    Raises what `bench`, `export` and `evaluate` raise.
    """
    shown = progress or Silent()
    with tempfile.TemporaryDirectory(prefix="secateur-beside-") as folder:
        entries = [(src, settings), *(_entry(whole, settings, *kind, Path(folder), shown) for kind in WHOLE)]
        measured = bench_each(entries, shown)
        scored = [text.perplexity(*entry, shown) if text else None for entry in entries]
    names = [
        f"{Path(src).name}, {settings.backend} {settings.kind}".strip(),
        *(f"whole, {backend} {kind}" for backend, kind in WHOLE),
    ]
    return [
        _row(name, measured[0][1], *one, score)
        for name, one, score in zip(names, measured, scored, strict=True)
    ]


def _entry(
    whole: str, settings: BenchSettings, backend: str, kind: str, folder: Path, progress: Progress
) -> tuple[str, BenchSettings]:
    if backend == "native":
        return whole, replace(settings, backend=backend, kind=kind)
    out = folder / f"{kind}.gguf"
    export(whole, out, kind=kind, progress=progress)
    return str(out), replace(settings, backend=backend, kind="")


def _row(name: str, first: Speed, benched: Benched, speed: Speed, perplexity: float | None) -> TimedRow:
    size = benched.native.weights if benched.native else benched.file_bytes
    return TimedRow(
        name, benched, size, benched.speeds["decode"], ratio_of(first, speed)["decode"], perplexity
    )
