"""`secateur verify`: prove that a model is whole and is what it says."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Optional

import typer

from secateur.cli.shared import options
from secateur.cli.shared.option_groups import DisplayOptions, with_options
from secateur_runtime.errors import VerificationError


@with_options
def verify(
    *,
    model: options.Model,
    reference: Annotated[
        Optional[str],
        typer.Option("--reference", help="Model to compare logits with, usually the dense parent."),
    ] = None,
    max_kl: Annotated[
        Optional[float],
        typer.Option("--max-kl", min=0.0, help="Fail beyond this KL(reference || model), nats per token."),
    ] = None,
    text: Annotated[str, typer.Option("--text", help="Text the logits are compared on.")] = "builtin",
    display: DisplayOptions,
) -> None:
    """Check digests, finite weights, sparsity, and the logits of stock transformers (and of a reference)."""
    options.needs("--reference", reference, max_kl=max_kl)
    from secateur.pipeline.evaluate.verify import verify

    with display.progress() as progress:
        found = verify(model, reference=reference, text=text, progress=progress)
    body: dict[str, Any] = {
        "model": model,
        "verdict": "ok",
        **{name: value for name, value in asdict(found).items() if name != "quality"},
    }
    if found.quality:
        body |= {"reference": reference, "kl": found.quality.kl, "agreement": found.quality.agreement}
        if max_kl is not None and not (found.quality.kl or 0.0) <= max_kl:
            raise VerificationError(
                f"{model} is {found.quality.kl:.4g} nats per token from {reference}, more than --max-kl"
                f" {max_kl}"
            )
    display.result(body)
