"""Export a model to a GGUF file, and prove in llama.cpp that it is the same model."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secateur.core.progress import Progress, Silent
from secateur.export.gguf.description import describe, naming_of, whole_settings
from secateur.export.gguf.layout import lay_out
from secateur.export.gguf.settings import context_length
from secateur.export.gguf.type_names import K_QUANTS, PACKED, PLAIN
from secateur.export.gguf.types import type_named
from secateur.model.block_stream import ModelStream
from secateur.model.formats.quantized_source import CodedSource
from secateur.model.handle import ModelHandle, open_model, open_registered
from secateur.pipeline.export.gguf_check import check_file
from secateur.runtime.llamacpp import require_llamacpp
from secateur_runtime.errors import MissingCheckerError, OutputError, UsageError

QUANTIZER = "llama-quantize"


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written.

    arch: GGUF architecture. context: longest context in which the file computes what the model does.
    kl: largest divergence of llama.cpp's next-token probabilities from ours, in nats; None where it was not
    checked.
    notes: what a user of the file should know.
    """

    out: Path
    arch: str
    type: str
    bytes: int
    blocks: int
    context: int
    kl: float | None
    notes: tuple[str, ...] = ()


def export(
    src: str,
    out: str | Path,
    *,
    kind: str = "auto",
    verify: bool = True,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Exported:
    """Write the model `src` as the GGUF file `out`, which appears only once llama.cpp reproduces the model.

    kind: type of most weights, see `secateur.export.gguf.types`; `auto` keeps the quantized values of a
    quantized model, and takes f16 for another.
    verify: False leaves the comparison out.
    Raises UsageError for a type that cannot hold the weights, UnsupportedModelError for a model llama.cpp
    cannot hold, MissingCheckerError without xllamacpp, OutputError if `out` cannot be written,
    VerificationError if the file is not the model.
    """
    out = Path(out)
    progress = progress or Silent()
    quantizer = _quantizer(kind)
    if out.suffix != ".gguf":
        raise UsageError(f"{out} does not end in .gguf: llama.cpp and secateur would not know what it is")
    if verify:
        require_llamacpp("checking the file", MissingCheckerError)
    model = open_registered(src)
    kind = _kind(model, kind)
    layout = lay_out(model.graph, naming_of(model))
    if quantizer and layout.per_block:
        raise UsageError(
            f"--type {kind} cannot be checked in a model with blocks of unequal width: use q8_0 or q4_0"
        )
    settings = whole_settings(model)
    described = describe(model, layout, kind)
    context = context_length(layout.loader, settings)
    kl = None
    with _writing(out, overwrite=overwrite) as partial:
        described.write(partial, progress)
        if quantizer:
            _quantize(quantizer, partial, kind)
        if verify:
            stored = (
                open_model(str(partial)).stream()
                if quantizer
                else ModelStream(described.rounded(), model.graph)
            )
            kl = check_file(model, stored, partial, kind, context, progress)
    return Exported(
        out, layout.arch, kind, out.stat().st_size, len(layout.shapes), context, kl, _notes(settings, context)
    )


def _notes(settings: Mapping[str, Any], context: int) -> tuple[str, ...]:
    if context >= settings["max_position_embeddings"]:
        return ()
    return (
        (
            f"llama.cpp has no attention window for this model, so the file announces a context of {context}:"
            " up to there the two compute the same"
        ),
    )


@contextmanager
def _writing(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield a path next to `out` that becomes `out` if all goes well, and is removed if not."""
    if out.is_dir():
        raise OutputError(f"{out} is a folder: give the name of a file")
    if out.exists() and not overwrite:
        raise OutputError(f"{out} exists: choose another --output, or pass --overwrite")
    # The reader goes by the suffix.
    partial = out.with_name(f"{out.stem}.partial.gguf")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        os.replace(partial, out)
    except OSError as error:
        raise OutputError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            partial.unlink()


def _kind(model: ModelHandle, kind: str) -> str:
    """Return the type to write; raises UsageError for one that would round a quantized model once more."""
    packed = isinstance(model.source, CodedSource) and bool(model.source.grids)
    if kind == "auto":
        return PACKED if packed else "f16"
    if kind == PACKED and not packed:
        raise UsageError(
            f"--type {PACKED} keeps the codes of a quantized model, and {model.source.ref} is none: quantize"
            " it first, or choose another type"
        )
    if packed and kind not in (PACKED, *PLAIN):
        raise UsageError(
            f"{model.source.ref} is quantized already, and --type {kind} would round it once more: leave"
            " --type out"
        )
    return kind


def _quantizer(kind: str) -> str:
    """Return the program that makes `kind`, or nothing where none is needed.

    Raises UsageError where there is none.
    """
    if kind != "auto":
        type_named(kind)
    if kind not in K_QUANTS:
        return ""
    program = shutil.which(QUANTIZER)
    if program is None:
        raise UsageError(
            f"--type {kind} needs llama.cpp's {QUANTIZER} program on the PATH: install llama.cpp, or use"
            " q4_0, q5_0 or q8_0"
        )
    return program


def _quantize(program: str, path: Path, kind: str) -> None:
    plain = path.with_name(f"{path.stem}.f16.gguf")
    path.rename(plain)
    try:
        done = subprocess.run(
            [program, str(plain), str(path), kind.upper()], capture_output=True, text=True, check=False
        )
    finally:
        plain.unlink()
    if done.returncode or not path.exists():
        reason = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise OutputError(f"{QUANTIZER} failed (exit {done.returncode}): {reason}")
