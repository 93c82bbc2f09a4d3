"""`secateur quantize`: weights become packed integers in a folder that stock transformers loads."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from secateur.cli.shared import options
from secateur.cli.shared.option_groups import CalibrationOptions, DisplayOptions, StorageOptions, with_options

if TYPE_CHECKING:
    from secateur.pipeline.quantize.quantize import Quantization, Quantized

_METHODS = "How weights are rounded. {quantizers:}."


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizationOptions:
    """What the weights become."""

    bits: Annotated[int, typer.Option("--bits", min=2, max=8, help="Bits of a weight.")] = 4
    group: Annotated[
        int,
        typer.Option(
            "--group", min=1, help="Inputs of a row that share a scale; GGUF holds multiples of 32."
        ),
    ] = 32
    asymmetric: Annotated[bool, typer.Option("--asymmetric", help="Each group also gets a zero point.")] = (
        False
    )
    method: Annotated[str, typer.Option("--method", help=_METHODS)] = "gptq"
    target: Annotated[
        str,
        typer.Option(
            "--target",
            help="Budget, size=60MB or size=30%: each layer gets 3 to 8 bits of its own, instead of --bits.",
        ),
    ] = ""
    sparsity: Annotated[
        str,
        typer.Option(
            "--sparsity",
            help="gptq: also make zeros, 0.5 or 2:4, pruning and rounding at once; chosen by --prune.",
        ),
    ] = ""
    prune: Annotated[
        str,
        typer.Option(
            "--prune", help="How these zeros are chosen: a method of weights, as in `secateur prune`."
        ),
    ] = "sparsegpt"
    protect: Annotated[
        list[str] | None,
        typer.Option(
            "--protect", help="first=N, last=N, or a glob over tensors, which stay as they are; repeatable."
        ),
    ] = None

    def quantization(self) -> Quantization:
        """Return the quantization that these options ask for."""
        from secateur.pipeline.quantize.quantize import Quantization

        return Quantization(
            bits=self.bits,
            group=self.group,
            symmetric=not self.asymmetric,
            method=self.method,
            protect=tuple(self.protect or ()),
            target=self.target,
            sparsity=self.sparsity,
            prune=self.prune,
        )


@with_options
def quantize(
    *,
    model: options.Model,
    output: options.Out,
    grid: QuantizationOptions,
    text: CalibrationOptions,
    seed: options.Seed = 0,
    storage: StorageOptions,
    display: DisplayOptions,
) -> None:
    """Quantize a model and write a packed Hugging Face folder that was reloaded and compared."""
    from secateur.pipeline.quantize.quantize import quantize

    how = grid.quantization()
    settings = storage.settings()
    started = time.perf_counter()
    with display.progress() as progress:
        made = quantize(
            model,
            output,
            how,
            calibration=text.calibration(),
            seed=seed,
            settings=settings,
            progress=progress,
        )
    display.result(
        changes(made) | {"seconds": round(time.perf_counter() - started, 1)}, title=f"wrote {output}"
    )


def changes(made: Quantized) -> dict[str, Any]:
    """Return what quantization changed, as printed."""
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
