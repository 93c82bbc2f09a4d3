"""Export a model to a file for another runtime, and prove there that it is the same model."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGUFValueType
from numpy.typing import NDArray
from transformers import AutoConfig

from secateur.calibrate.text import read_text, windows
from secateur.core.errors import OutputError, SourceError, UsageError, VerificationError
from secateur.core.progress import Progress, Silent
from secateur.export.check import ask, inputs_rounded, largest_divergence, limit
from secateur.export.gguf import GgufExport, Typed
from secateur.export.layout import Layout, Naming, lay_out
from secateur.export.rope import rope_of
from secateur.export.settings import context_length, model_fields
from secateur.export.types import K_QUANTS, type_named
from secateur.export.vocabulary import PROBE, model_name, tokenizer_fields
from secateur.model.families import BASE_KEY, EMBED, FINAL_NORM, HEAD, family_of
from secateur.model.gguf_config import ARCHS
from secateur.model.gguf_file import GgufSource
from secateur.model.gguf_header import GgufHeader, read_header
from secateur.model.gguf_names import block_names
from secateur.model.opened import Opened, open_model
from secateur.model.stream import ModelStream
from secateur.model.tokenizer import SPLITS
from secateur.runtime.isolated import Isolated
from secateur.runtime.llamacpp import require_llamacpp

QUANTIZER = "llama-quantize"
_COPIED = ("tokenizer.", "general.name", "general.license", "general.languages")
_OUTSIDE = {"token_embd.weight": EMBED, "output_norm.weight": FINAL_NORM, "output.weight": HEAD}
_PROMPTS, _PROMPT_TOKENS = 4, 64


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written.

    arch: GGUF architecture. context: longest context in which the file computes what the model does.
    kl: largest divergence of llama.cpp's next-token probabilities from ours, in nats; None where it was not checked.
    """

    out: Path
    arch: str
    type: str
    bytes: int
    blocks: int
    context: int
    kl: float | None


def export(src: str, out: str | Path, *, kind: str = "f16", verify: bool = True, overwrite: bool = False, progress: Progress | None = None) -> Exported:
    """Write the model `src` as the GGUF file `out`, which appears only once llama.cpp computes from it what the model computes.

    kind: type of most weights, see `secateur.export.types`. verify: False leaves the comparison out.
    Raises UsageError for a type that cannot hold the weights, UnsupportedModelError for a model llama.cpp cannot hold,
    MissingExtraError without xllamacpp, OutputError if `out` cannot be written, VerificationError if the file is not the model.
    """
    out, progress = Path(out), progress or Silent()
    quantizer = _quantizer(kind)
    if out.suffix != ".gguf":
        raise UsageError(f"{out} does not end in .gguf: llama.cpp and secateur would not know what it is")
    if verify:
        require_llamacpp("checking the file")
    model = open_model(src)
    layout = lay_out(model.graph, _naming(model))
    if quantizer and layout.arch not in ARCHS:
        raise UsageError(f"--type {kind} cannot be checked in a model with blocks of unequal width: use q8_0 or q4_0")
    plan = _plan(model, layout, kind)
    with _writing(out, overwrite=overwrite) as partial:
        plan.write(partial, progress)
        if quantizer:
            _quantize(quantizer, partial, kind)
        context = context_length(layout.arch, _settings(model))
        kl = None
        if verify:
            stored = open_model(str(partial)).stream() if quantizer else ModelStream(plan.rounded(), model.graph)
            kl = _check(model, stored, partial, kind, context, progress)
    return Exported(out, layout.arch, kind, out.stat().st_size, len(layout.shapes), context, kl)


def _plan(model: Opened, layout: Layout, kind: str) -> GgufExport:
    settings = _settings(model)
    rope = rope_of(layout.arch, settings, max(shape.head_dim for shape in layout.shapes))
    fields = {"general.type": "model", **model_fields(layout, settings, rope), **_words(model, settings)}
    return GgufExport(model.source, layout, fields, rope.factors, type_named(kind), EMBED if model.graph.tied else HEAD)


def _settings(model: Opened) -> dict[str, Any]:
    """Return the whole config, with what its class fills in."""
    config = {key: value for key, value in model.source.config.items() if key not in ("per_layer_config", "auto_map")}
    whole: dict[str, Any] = AutoConfig.for_model(**config | {"model_type": config.get(BASE_KEY, config["model_type"])}).to_dict()
    return whole


def _naming(model: Opened) -> Naming:
    family = family_of(model.source.config)
    # A GGUF file does not tell Mistral from Llama.
    arch = next((name for name, row in ARCHS.items() if row.family == family.name), "llama")
    return Naming(arch=arch, outside=_OUTSIDE, inside=block_names(family), permuted=ARCHS[arch].permuted, norm_offset=ARCHS[arch].norm_offset)


def _words(model: Opened, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the name and the tokenizer; those of a GGUF file as they are."""
    if isinstance(model.source, GgufSource):
        return _copied(read_header(model.source.path))
    tokenizer = model.source.tokenizer()
    name = model_name(Path(model.source.ref).resolve().name, tokenizer)
    return {"general.name": name, **tokenizer_fields(tokenizer, settings, SPLITS)}


def _copied(header: GgufHeader) -> dict[str, Typed]:
    """Return what a GGUF file says of itself in words."""
    found = {}
    with header.path.open("rb") as file:
        for key, (kind, start, _) in header.spans.items():
            if key.startswith(_COPIED):
                file.seek(start)
                item = GGUFValueType(int.from_bytes(file.read(4), "little")) if kind == GGUFValueType.ARRAY else None
                value = header.get(key)
                if value != []:
                    found[key] = Typed(value, GGUFValueType(kind), item)
    return found


@contextmanager
def _writing(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield a name beside `out` that becomes `out` if all goes well, and is gone if not."""
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
        partial.unlink(missing_ok=True)


def _quantizer(kind: str) -> str:
    """Return the program that makes `kind`, or nothing where none is needed; raises UsageError where there is none."""
    type_named(kind)
    if kind not in K_QUANTS:
        return ""
    program = shutil.which(QUANTIZER)
    if program is None:
        raise UsageError(f"--type {kind} needs llama.cpp's {QUANTIZER} program on the PATH: install llama.cpp, or use q4_0, q5_0 or q8_0")
    return program


def _quantize(program: str, path: Path, kind: str) -> None:
    plain = path.with_name(f"{path.stem}.f16.gguf")
    path.rename(plain)
    try:
        done = subprocess.run([program, str(plain), str(path), kind.upper()], capture_output=True, text=True, check=False)
    finally:
        plain.unlink()
    if done.returncode or not path.exists():
        reason = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise OutputError(f"{QUANTIZER} failed (exit {done.returncode}): {reason}")


def _check(model: Opened, stream: ModelStream, path: Path, kind: str, context: int, progress: Progress) -> float:
    """Return the largest divergence of llama.cpp from `stream`; raises VerificationError if it is too large or text is cut otherwise."""
    length = min(_PROMPT_TOKENS, context - 1)
    tokenizer = model.source.tokenizer()
    tokens = windows(read_text("builtin"), tokenizer, length, _PROMPTS)
    progress.start("check", 2 + (kind != "f32"))
    expected = _predictions(stream, tokens)
    progress.step("secateur")
    allowed = limit(0.0)
    if kind != "f32":
        with inputs_rounded(kind):
            allowed = limit(largest_divergence(expected, _predictions(stream, tokens)))
        progress.step("rounding")
    try:
        with Isolated("llama.cpp", "secateur.runtime.llamacpp:LlamaCpp", {"path": str(path), "context": length + 1, "exact": True}) as backend:
            if backend.tokenize(PROBE) != list(tokenizer(PROBE)["input_ids"]):
                raise VerificationError(f"llama.cpp cuts text into other tokens than the tokenizer of {model.source.ref}")
            kl = largest_divergence(expected, ask(backend, [row[:end].tolist() for row in tokens for end in _ends(length)]))
    except SourceError as error:
        raise VerificationError(str(error)) from None
    progress.step("llama.cpp")
    if not kl <= allowed:
        raise VerificationError(f"llama.cpp computes other probabilities from the file than the model gives (KL {kl:.1e} nats, {allowed:.1e} allowed)")
    return kl


def _ends(length: int) -> tuple[int, ...]:
    return (length // 2, length)


@torch.no_grad()
def _predictions(stream: ModelStream, tokens: torch.Tensor) -> list[NDArray[np.float64]]:
    """Return the natural logarithms of the next-token probabilities after half and after all of each row of `tokens`."""
    (states,) = stream.embed([tokens])
    for index in range(len(stream)):
        with stream.open(index) as block:
            states = block(states)
    ends = torch.tensor(_ends(tokens.shape[1])) - 1
    logits = torch.cat(list(stream.logits(states[:, ends].flatten(0, 1)))).double()
    return list(torch.log_softmax(logits, -1).numpy())
