"""A folder of a sparse or quantized model with its zeros put back, for stock transformers."""

from __future__ import annotations

from secateur.pipeline.export.formats import Exporter, ExportRequest, ExportResult, StoredBits, add_exporter


def _write(request: ExportRequest) -> ExportResult:
    from secateur.pipeline.export.sparse_folder import DENSE, export_sparse, folder_result

    done = export_sparse(
        request.src,
        request.out,
        kind=DENSE,
        group=request.group,
        overwrite=request.overwrite,
        progress=request.progress,
    )
    return folder_result(done)


def _bits(kind: str, before: float, zeros: float) -> StoredBits:
    """Quantized values become float32, which holds them exactly."""
    bits = 16.0 if before >= 16 else 32.0
    return StoredBits(bits, bits)


add_exporter(
    Exporter(
        name="dense",
        about="a folder for stock transformers, with the zeros put back",
        runtime="transformers",
        types=("dense",),
        bits=_bits,
        write=_write,
    )
)
