"""`secateur quantize`: weights become integers, packed, in a folder that stock transformers loads."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from secateur.cli.model.apply import settings_of
from secateur.cli.shared import options, printing

if TYPE_CHECKING:
    from secateur.pipeline.quantize.quantize import Quantized

_METHODS = (
    "gptq (rounded column by column, the rest answers for each error), imatrix (nearest, on grids fitted by"
    " the inputs' size), rtn (nearest; no text)."
)


def quantize(
    model: options.Model,
    output: options.Out,
    bits: Annotated[int, typer.Option("--bits", min=2, max=8, help="Bits of a weight.")] = 4,
    group: Annotated[
        int,
        typer.Option(
            "--group", min=1, help="Inputs of a row that share a scale; GGUF holds multiples of 32."
        ),
    ] = 32,
    asymmetric: Annotated[
        bool, typer.Option("--asymmetric", help="Each group also gets a zero point.")
    ] = False,
    method: Annotated[str, typer.Option("--method", help=_METHODS)] = "gptq",
    target: Annotated[
        str,
        typer.Option(
            "--target",
            help="Budget, size=60MB or size=30%: each layer gets 3 to 8 bits of its own, instead of --bits.",
        ),
    ] = "",
    sparsity: Annotated[
        str,
        typer.Option(
            "--sparsity",
            help="gptq: also make zeros, 0.5 or 2:4, pruning and rounding at once; chosen by --prune.",
        ),
    ] = "",
    prune: Annotated[
        str,
        typer.Option(
            "--prune", help="How these zeros are chosen: a method of weights, as in `secateur prune`."
        ),
    ] = "sparsegpt",
    protect: Annotated[
        list[str] | None,
        typer.Option(
            "--protect", help="first=N, last=N, or a glob over tensors, which stay as they are; repeatable."
        ),
    ] = None,
    calib: options.Calib = "builtin",
    samples: options.Samples = 64,
    calib_window: options.CalibWindow = 512,
    seed: options.Seed = 0,
    dtype: options.Dtype = "auto",
    compute: options.RunCompute = None,
    memory: options.Memory = 1024,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Quantise a model and write a packed Hugging Face folder that was reloaded and compared."""
    from secateur.calibrate.calibration import Calibration
    from secateur.pipeline.quantize.quantize import Quantization, quantize

    grid: dict[str, Any] = {"bits": bits, "group": group, "symmetric": not asymmetric, "target": target}
    how = Quantization(**grid, method=method, sparsity=sparsity, prune=prune, protect=tuple(protect or ()))
    settings = settings_of(dtype, compute, memory, overwrite=overwrite)
    calibration = Calibration(text=calib, samples=samples, window=calib_window)
    started = time.perf_counter()
    with printing.progress(quiet=quiet or as_json) as progress:
        made = quantize(
            model, output, how, calibration=calibration, seed=seed, settings=settings, progress=progress
        )
    body = changes(made) | {"seconds": round(time.perf_counter() - started, 1)}
    printing.result(body, as_json=as_json, title=f"wrote {output}")


def changes(made: Quantized) -> dict[str, Any]:
    """Return what a run changed, for people."""
    return {
        "output": str(made.out),
        "method": made.method,
        "grids": dict(made.grids),
        "bits_per_weight": round(made.bits_per_weight, 4),
        "sparsity": round(made.sparsity, 5),
        "parameters": made.parameters,
        "bytes": made.bytes,
        "resumed_blocks": made.resumed_blocks,
        "reload_difference": made.reload_difference,
    }
