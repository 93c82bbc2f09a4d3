"""Perplexity of a model on a text, and its divergence from a reference."""

from __future__ import annotations

from secateur.calibrate.text import read_text, windows
from secateur.core.context import Arithmetic
from secateur.core.progress import Progress, Silent
from secateur.measure.perplexity import Quality, measure
from secateur.model.handle import open_model
from secateur.pipeline.evaluate.cross_tokenizer import measure_across, same_tokens
from secateur.pipeline.evaluate.native_model import NativeOptions
from secateur.pipeline.evaluate.native_quality import measure_natively
from secateur.tensors.precision import arithmetic
from secateur_runtime.errors import UsageError


def evaluate(
    src: str,
    *,
    text: str = "builtin",
    window: int = 2048,
    count: int | None = 20,
    reference: str | None = None,
    compute: Arithmetic = "float32",
    native: NativeOptions | None = None,
    progress: Progress | None = None,
) -> Quality:
    """Measure perplexity on `count` windows of `window` tokens of `text`, and divergence from `reference`.

    The text is tokenized whole, without special tokens, and cut without overlap; each window predicts its
    last `window - 1` tokens. native: run `src` in the native backend with these options instead of torch.
    Where `reference` reads the text as other tokens, the windows are its own, and figures are per token of
    it: see `measure_across`.
    Raises TextError if the text is too short, UsageError if the tokens of the two models cannot be aligned,
    and what `native_backend` raises.
    """
    model = open_model(src)
    if window < 2:
        raise UsageError(f"a window of {window} tokens predicts nothing: --window must be at least 2")
    read = read_text(text)
    other = open_model(reference) if reference else None
    shown = progress or Silent()
    tokens = windows(read, (other or model).source.tokenizer(), window, count)
    with arithmetic(compute):
        if other and not same_tokens(model, other, read, tokens):
            return measure_across(model, other, read, tokens, shown, native)
        if native:
            return measure_natively(model, native, tokens, shown, other.stream() if other else None)
        return measure(model.stream(), tokens, shown, other.stream() if other else None)
