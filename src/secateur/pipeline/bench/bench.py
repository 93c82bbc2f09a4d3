"""Measure the speed and the memory of a model, compared with a baseline in the same run."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from secateur.core.progress import Progress, Silent
from secateur.model.formats.gguf.gguf_source import GgufSource
from secateur.model.full_model import load_whole
from secateur.model.handle import ModelHandle, open_registered
from secateur.pipeline.evaluate.native_model import check_kind
from secateur.pipeline.export.gguf import export
from secateur.runtime.isolated import Isolated
from secateur.runtime.llamacpp import require_llamacpp
from secateur.runtime.memory_stream import SIZE, Stream
from secateur.runtime.native import About
from secateur.runtime.timed_turns import Speed, Spread, ratios, take_turns
from secateur.runtime.torch import TorchBackend
from secateur_runtime.cores import check_threads
from secateur_runtime.errors import UsageError, nearest
from secateur_runtime.kernels.library import kernels
from secateur_runtime.kernels.thread_pool import ThreadPool
from secateur_runtime.record import Record

BACKENDS = ("torch", "llamacpp", "native")
_TORCH_TYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
_UNITS = {"prompt": "tokens/s", "decode": "tokens/s", "first": "s"}


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchSettings:
    """How to measure.

    backend: of `BACKENDS`. kind: type of the weights; empty for float32 in torch, in llama.cpp for the file
    as it is, the quantized values of a quantized model, or f16, and in native for what the folder holds.
    prompt, tokens: lengths of prompt and answer. repeat: counted runs after one that warms up.
    """

    backend: str = "torch"
    threads: int = 1
    prompt: int = 256
    tokens: int = 64
    repeat: int = 5
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Benched:
    """Figures of one model.

    speeds: by name (`prompt`, `decode`, `first`). peak_memory: bytes of the process while it ran.
    file_bytes: of its weight files. ratio: this model's speeds by the baseline's, where there was one.
    native: facts of the model in the native backend. stream: share of the memory bandwidth, measured in the
    same turns, at which it reads weights.
    """

    model: str
    digest: str
    speeds: dict[str, Spread]
    peak_memory: int
    file_bytes: int
    ratio: dict[str, Spread] | None = None
    native: About | None = None
    stream: Spread | None = None

    def records(self, settings: BenchSettings) -> list[Record]:
        """Return the medians as records."""
        protocol = (
            f"{f'{settings.backend} {settings.kind}'.strip()}, {settings.threads} threads, {settings.prompt}"
            f" tokens of prompt, {settings.tokens} of answer"
        )
        protocol += f", one warm-up, median of {settings.repeat}" + (
            ", in turns with a baseline" if self.ratio else ""
        )
        values = [(name, spread.median, _UNITS[name]) for name, spread in self.speeds.items()]
        values += [
            ("peak_memory", float(self.peak_memory), "bytes"),
            ("file", float(self.file_bytes), "bytes"),
        ]
        return [
            Record(name=name, value=value, unit=unit, protocol=protocol, model=self.digest)
            for name, value, unit in values
        ]


def bench(
    src: str,
    against: str | None = None,
    settings: BenchSettings | None = None,
    progress: Progress | None = None,
) -> list[Benched]:
    """Return the figures of the model `src`, and after them those of the baseline `against`.

    Raises UsageError for settings that cannot work, MissingExtraError without xllamacpp, and what `export`
    raises.
    """
    settings = settings or BenchSettings()
    return with_ratio(bench_each([(ref, settings) for ref in (src, against) if ref], progress or Silent()))


def bench_each(
    entries: Sequence[tuple[str, BenchSettings]], progress: Progress
) -> list[tuple[Benched, Speed]]:
    """Return the figures of models, measured in turns, each with its own backend and type.

    entries: models and their settings. Lengths and repetitions are those of the first.
    Raises as `bench` does.
    """
    for _, settings in entries:
        _check(settings)
    asked = [settings for _, settings in entries]
    models = [open_registered(ref) for ref, _ in entries]
    _check_context(models, asked[0])
    with tempfile.TemporaryDirectory(prefix="secateur-bench-") as folder:
        named = [Path(folder) / f"{index}.gguf" for index in range(len(models))]
        files = [_file(*one, progress) for one in zip(models, asked, named, strict=True)]
        return _in_turns(models, files, asked, progress)


def bench_files(
    src: str, files: Sequence[Path], settings: BenchSettings, progress: Progress | None = None
) -> list[Benched]:
    """Return the figures of GGUF files in llama.cpp, the first with its ratio to the second.

    src: the model of which the files were made, for files whose architecture only llama.cpp knows.
    Raises as `bench` does.
    """
    _check(settings)
    models = [open_registered(src)] * len(files)
    _check_context(models, settings)
    return with_ratio(_in_turns(models, files, [settings] * len(files), progress or Silent()))


def _check_context(models: Sequence[ModelHandle], settings: BenchSettings) -> None:
    for model in models:
        longest = int(model.source.config.get("max_position_embeddings", 0))
        if settings.prompt + settings.tokens > longest:
            raise UsageError(
                f"{model.source.ref} has a context of {longest} tokens: lower --prompt or --tokens"
            )


def _in_turns(
    models: Sequence[ModelHandle], files: Sequence[Path], each: Sequence[BenchSettings], progress: Progress
) -> list[tuple[Benched, Speed]]:
    asked = each[0]
    with ExitStack() as stack:
        backends = [stack.enter_context(_backend(*one)) for one in zip(files, each, strict=True)]
        # What is answered does not change how long it takes.
        prompts = [
            np.random.default_rng(0).integers(model.graph.vocab_size, size=asked.prompt).tolist()
            for model in models
        ]
        memory = _memory_stream(each)
        speeds = take_turns(
            [*backends, *memory], [*prompts, *([0] for _ in memory)], asked.tokens, asked.repeat, progress
        )
        bandwidth = [
            SIZE * one / (asked.tokens - 1) for speed in speeds[len(models) :] for one in speed.decode
        ]
        return [
            (_benched(*row, bandwidth), row[1]) for row in zip(models, speeds, files, backends, strict=False)
        ]


def _memory_stream(each: Sequence[BenchSettings]) -> list[Stream]:
    """Return memory as one more backend where a native one counts the bytes that it reads."""
    library = kernels() if any(settings.backend == "native" for settings in each) else None
    return [Stream(ThreadPool(library, each[0].threads))] if library else []


def with_ratio(measured: Sequence[tuple[Benched, Speed]]) -> list[Benched]:
    """Return the figures of models, the first with its ratio to the second."""
    found = [one for one, _ in measured]
    return (
        [replace(found[0], ratio=ratio_of(measured[0][1], measured[1][1])), *found[1:]]
        if len(found) > 1
        else found
    )


def ratio_of(ours: Speed, theirs: Speed) -> dict[str, Spread]:
    """Return the spread of the ratio of each figure, taken turn by turn."""
    return {name: ratios(getattr(ours, name), getattr(theirs, name)) for name in _UNITS}


def torch_backend(model: str, kind: str, threads: int) -> TorchBackend:
    """Return the whole model `model` in memory, for a process of its own."""
    torch.set_num_threads(threads)
    return TorchBackend(load_whole(open_registered(model), _TORCH_TYPES[kind]))


def _check(settings: BenchSettings) -> None:
    if settings.backend not in BACKENDS:
        raise UsageError(
            f"unknown --backend {settings.backend!r}{nearest(settings.backend, BACKENDS)}; known:"
            f" {', '.join(BACKENDS)}"
        )
    if settings.backend == "torch" and settings.kind and settings.kind not in _TORCH_TYPES:
        raise UsageError(
            f"--type {settings.kind} is not one that torch computes in: use {' or '.join(_TORCH_TYPES)}, or"
            " --backend llamacpp"
        )
    check_threads(settings.threads)
    if settings.tokens < 2:
        raise UsageError("--tokens must be at least 2: the first one counts as the end of the prompt")
    if settings.backend == "llamacpp":
        require_llamacpp("--backend llamacpp")
    if settings.backend == "native":
        check_kind(settings.kind)


def _file(model: ModelHandle, settings: BenchSettings, scratch: Path, progress: Progress) -> Path:
    """Return what the backend loads, made first where it cannot load the model itself."""
    path = model.source.path if isinstance(model.source, GgufSource) else None
    if settings.backend != "llamacpp":
        return path or Path(model.source.ref)
    if path and not settings.kind:
        return path
    return export(model.source.ref, scratch, kind=settings.kind or "auto", progress=progress).out


def _backend(path: Path, settings: BenchSettings) -> Isolated:
    if settings.backend == "llamacpp":
        options: dict[str, Any] = {
            "path": str(path),
            "context": settings.prompt + settings.tokens,
            "threads": settings.threads,
        }
        return Isolated("llama.cpp", "secateur.runtime.llamacpp:LlamaCpp", options)
    options = {"model": str(path), "kind": settings.kind, "threads": settings.threads}
    if settings.backend == "native":
        return Isolated("native", "secateur.pipeline.evaluate.native_model:native_backend", options)
    return Isolated(
        "torch", "secateur.pipeline.bench.bench:torch_backend", options | {"kind": settings.kind or "f32"}
    )


def _benched(
    model: ModelHandle, speed: Speed, path: Path, backend: Isolated, bandwidth: Sequence[float]
) -> Benched:
    files = [path] if path.is_file() else list(path.glob("*.safetensors"))
    speeds = {name: Spread.of(getattr(speed, name)) for name in _UNITS}
    told: About | None = backend.about() if backend.name == "native" and kernels() else None
    stream = ratios([told.read * one for one in speed.decode], bandwidth) if told and bandwidth else None
    size = sum(file.stat().st_size for file in files)
    return Benched(
        model.source.ref, model.digest, speeds, backend.memory().peak, size, native=told, stream=stream
    )
