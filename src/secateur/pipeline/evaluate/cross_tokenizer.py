"""Quality against a reference that reads other tokens, such as the model before vocabulary pruning."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from secateur.calibrate.retokenize import Speller, side_by_side
from secateur.calibrate.text import Text, encoded
from secateur.core.progress import Progress
from secateur.core.text_span import Passage
from secateur.measure.cross_tokenizer import per_unit, predicted_nll, streamed_logits
from secateur.measure.perplexity import Quality
from secateur.model.handle import ModelHandle
from secateur.pipeline.evaluate.native_model import NativeOptions
from secateur.pipeline.evaluate.native_quality import native_logits
from secateur_runtime.errors import UsageError


def same_tokens(model: ModelHandle, reference: ModelHandle, text: Text, tokens: Tensor) -> bool:
    """Return whether both models read the text as the same tokens and predict equally many.

    tokens: `[windows, length]`, the first windows of the text as `reference` reads it.
    """
    if model.graph.vocab_size != reference.graph.vocab_size:
        return False
    encoding, sure = encoded(text.text, model.source.tokenizer(), tokens.numel())
    return bool(encoding["input_ids"][: min(sure, tokens.numel())] == tokens.flatten().tolist())


def measure_across(
    model: ModelHandle,
    reference: ModelHandle,
    text: Text,
    tokens: Tensor,
    progress: Progress,
    native: NativeOptions | None = None,
) -> Quality:
    """Return the quality of `model` per token of `reference`, on windows that both predict.

    tokens: `[windows, length]`, windows of `text` as `reference` reads it. `side_by_side` says what exactly
    is predicted. native: as `pipeline.evaluate` has it.
    Raises UsageError where a tokenizer cannot spell the text, or `model` has too few positions for a window.
    """
    pairs = side_by_side(
        text,
        tokens,
        Speller(reference.source.ref, reference.source.tokenizer()),
        Speller(model.source.ref, model.source.tokenizer()),
    )
    theirs = [pair[0] for pair in pairs]
    ours = [pair[1] for pair in pairs]
    _check_positions(model, reference, ours, tokens.shape[1])
    other = reference.stream()
    if native:
        logits = native_logits(model, native, [passage.ids for passage in ours], progress)
        progress.start("evaluate", len(ours) + len(other))
    else:
        stream = model.stream()
        progress.start("evaluate", len(stream) + len(other))
        logits = streamed_logits(stream, ours, progress)
    sums = predicted_nll(logits, ours)
    return per_unit(
        sums, predicted_nll(streamed_logits(other, theirs, progress), theirs), ours, reference.source.ref
    )


def _check_positions(
    model: ModelHandle, reference: ModelHandle, passages: Sequence[Passage], window: int
) -> None:
    needed = max(len(passage.ids) - 1 for passage in passages)
    most = int(model.config.max_position_embeddings)
    if needed > most:
        raise UsageError(
            f"{window} tokens of {reference.source.ref} take up to {needed} positions in {model.source.ref},"
            f" which has {most}: give --window {max(2, window * most // needed)} or fewer"
        )
