"""A folder that stores no zeros, which Secateur opens and its C kernels run."""

from __future__ import annotations

from secateur.pipeline.export.formats import (
    USUAL,
    Exporter,
    ExportRequest,
    ExportResult,
    StoredBits,
    add_exporter,
)

_VALUE_BITS = {"sparse-bf16": 16.0, "sparse-int8": 8.0, "sparse-int4": 4.0}
_SCALE_BITS = {"sparse-bf16": 0.0, "sparse-int8": 16 / 64, "sparse-int4": 16 / 32}
_MASK_BITS = 1.0


def _write(request: ExportRequest) -> ExportResult:
    from secateur.pipeline.export.sparse_folder import export_sparse, folder_result

    done = export_sparse(
        request.src,
        request.out,
        kind=_named(request.type),
        group=request.group,
        overwrite=request.overwrite,
        progress=request.progress,
    )
    return folder_result(done)


def _named(kind: str) -> str:
    return "sparse-bf16" if kind == USUAL else kind


def _bits(kind: str, before: float, zeros: float) -> StoredBits:
    named = _named(kind)
    return StoredBits(_MASK_BITS + _SCALE_BITS[named] + (1 - zeros) * _VALUE_BITS[named], 16.0)


add_exporter(
    Exporter(
        name="sparse",
        about="a folder that stores no zeros, for secateur itself (auto: sparse-bf16)",
        runtime="secateur",
        types=tuple(_VALUE_BITS),
        bits=_bits,
        write=_write,
        grouped=("sparse-int8", "sparse-int4"),
    )
)
