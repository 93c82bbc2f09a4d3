"""A model in GGUF terms: metadata, tensor names, and how its weights are stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gguf import GGUFValueType

from secateur.export.gguf.layout import Layout, Naming
from secateur.export.gguf.rope import rope_of
from secateur.export.gguf.settings import model_fields
from secateur.export.gguf.tokenizer import model_name, tokenizer_fields
from secateur.export.gguf.type_names import PACKED
from secateur.export.gguf.types import type_named
from secateur.export.gguf.writer import GgufExport, QuantizedWeights, Typed
from secateur.model.families import EMBED, HEAD
from secateur.model.formats.gguf.gguf_source import GgufSource
from secateur.model.formats.gguf.header import GgufHeader, read_header
from secateur.model.formats.gguf.names import OUTSIDE, block_names
from secateur.model.formats.gguf.tokenizer import SPLITS
from secateur.model.formats.quantized_source import CodedSource
from secateur.model.handle import ModelHandle
from secateur.model.transformers_model import transformers_config

_COPIED = ("tokenizer.", "general.name", "general.license", "general.languages")


def describe(model: ModelHandle, layout: Layout, kind: str) -> GgufExport:
    """Return `model` ready to be written with most weights of the type `kind`.

    Raises UnsupportedModelError for settings or a tokenizer that GGUF or llama.cpp cannot hold, UsageError
    for widths that do not fit the type.
    """
    settings = whole_settings(model)
    rope = rope_of(layout.loader, settings, max(shape.head_dim for shape in layout.shapes))
    fields = {"general.type": "model", **model_fields(layout, settings, rope), **_words(model, settings)}
    held = (
        QuantizedWeights(model.source.grids, model.source.codes)
        if isinstance(model.source, CodedSource) and kind == PACKED
        else type_named(kind)
    )
    return GgufExport(model.source, layout, fields, rope.factors, held, EMBED if model.graph.tied else HEAD)


def whole_settings(model: ModelHandle) -> dict[str, Any]:
    """Return the whole config, with what its class fills in."""
    whole: dict[str, Any] = transformers_config(model.source.config).to_dict()
    return whole


def naming_of(model: ModelHandle) -> Naming:
    """Return how the family of `model` is named and laid out in GGUF.

    Raises UnsupportedModelError for a family that no known architecture holds.
    """
    family = model.family
    stored = family.in_gguf()
    return Naming(
        loader=stored.loader,
        per_block=stored.per_block,
        outside=OUTSIDE,
        inside=block_names(family),
        norm_offset=family.norm_offset,
    )


def overhead(model: ModelHandle) -> int:
    """Return about how many bytes of tokenizer and settings a file of `model` holds."""
    if isinstance(model.source, GgufSource):
        return min(tensor.offset for tensor in read_header(model.source.path).tensors.values())
    return _packed(tokenizer_fields(model.source.tokenizer(), whole_settings(model), SPLITS))


def _packed(value: Any) -> int:
    """Return about how many bytes a value of GGUF metadata takes."""
    match value:
        case dict():
            return sum(len(key) + 12 + _packed(one) for key, one in value.items())
        case list():
            return 12 + sum(map(_packed, value))
        case str():
            return 8 + len(value.encode())
    return 4


def _words(model: ModelHandle, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the name and the tokenizer; those of a GGUF file as they are."""
    if isinstance(model.source, GgufSource):
        return _copied(read_header(model.source.path))
    tokenizer = model.source.tokenizer()
    name = model_name(Path(model.source.ref).resolve().name, tokenizer)
    return {"general.name": name, **tokenizer_fields(tokenizer, settings, SPLITS)}


def _copied(header: GgufHeader) -> dict[str, Typed]:
    """Return the name, the licence and the tokenizer of a GGUF file as they are stored."""
    found = {}
    with header.path.open("rb") as file:
        for key, (kind, start, _) in header.spans.items():
            if key.startswith(_COPIED):
                file.seek(start)
                item = (
                    GGUFValueType(int.from_bytes(file.read(4), "little"))
                    if kind == GGUFValueType.ARRAY
                    else None
                )
                value = header.get(key)
                if value != []:
                    found[key] = Typed(value, GGUFValueType(kind), item)
    return found
