"""GGUF: one file for llama.cpp, which must predict from it what the model does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from secateur.export.gguf.type_names import BITS, K_QUANTS, PACKED
from secateur.pipeline.export.formats import (
    USUAL,
    AdvisedFormat,
    AdvisedType,
    Exporter,
    ExportRequest,
    ExportResult,
    StoredBits,
    add_exporter,
)
from secateur_runtime.errors import UsageError

if TYPE_CHECKING:
    from secateur.model.handle import ModelHandle

_K_QUANT_BITS = 4.85
"""Of an average K-quant, q4_k_m."""
_OUTSIDE_BITS = 8.5
"""Of embeddings and output matrix in a file of quantized weights."""


def _write(request: ExportRequest) -> ExportResult:
    from secateur.pipeline.export.gguf import export

    done = export(
        request.src,
        request.out,
        kind=request.type,
        verify=request.verify,
        overwrite=request.overwrite,
        progress=request.progress,
    )
    facts = {
        "architecture": done.arch,
        "type": done.type,
        "bytes": done.bytes,
        "blocks": done.blocks,
        "context": done.context,
        "verified": done.kl is not None,
        "kl": done.kl,
    }
    return ExportResult(
        out=done.out,
        type=done.type,
        bytes=done.bytes,
        facts=facts,
        figures={"kl_in_llama_cpp": done.kl},
        notes=done.notes,
        verified=done.kl is not None,
    )


def _bits(kind: str, before: float, zeros: float) -> StoredBits:
    """Zeros are stored like any other weight."""
    if kind == USUAL and before < 16:
        inside = min(bits for bits in BITS.values() if bits >= before)
    else:
        inside = BITS.get("f16" if kind == USUAL else kind, _K_QUANT_BITS)
    return StoredBits(inside, 16.0 if inside >= 16 else _OUTSIDE_BITS)


def _nbytes(shape: tuple[int, ...], count: int, kind: str, output: bool) -> int:
    from secateur.export.gguf.types import kind_of, nbytes, type_named

    return nbytes((count,), kind_of(type_named(kind), shape, output=output))


def _holds(shape: tuple[int, ...], kind: str) -> bool:
    from secateur.export.gguf.types import check_width, kind_of, type_named

    try:
        check_width("", shape, kind_of(type_named(kind), shape, output=False))
    except UsageError:
        return False
    return True


def _overhead(model: ModelHandle) -> int:
    from secateur.export.gguf.description import overhead

    return overhead(model)


add_exporter(
    Exporter(
        name="gguf",
        about="a file for llama.cpp (auto: the codes of a quantized model as they are, f16 for another)",
        runtime="llama.cpp",
        types=(*BITS, *K_QUANTS, PACKED),
        bits=_bits,
        write=_write,
        suffix=".gguf",
        package="xllamacpp",
        extra="llamacpp",
        advised=AdvisedFormat(
            # Perplexity measured on SmolLM2-135M-Instruct (WikiText-2, LOG.md).
            types={
                "f16": AdvisedType(1.0),
                "q8_0": AdvisedType(1.003),
                "q5_0": AdvisedType(1.10, bits=5),
                "q4_0": AdvisedType(1.27, bits=4),
            },
            nbytes=_nbytes,
            holds=_holds,
            overhead=_overhead,
            backend="llamacpp",
        ),
    )
)
