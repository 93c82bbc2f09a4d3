"""Quality of a model compared with a reference that has another tokenizer.

Both predict the same characters; the loss is given per token of the reference.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from secateur.core.progress import Progress
from secateur.core.text_span import Passage
from secateur.measure.perplexity import Quality
from secateur.tensors.layer_stream import LayerStream


def streamed_logits(stream: LayerStream, passages: Sequence[Passage], progress: Progress) -> Iterator[Tensor]:
    """Return the logits after every token but the last of each passage, `[positions, vocab_size]`, in chunks.

    Passages differ in length and run one by one, so that the logits of one depend neither on padding nor on
    the others.
    """
    states = list(stream.embed(torch.tensor(passage.ids[:-1])[None] for passage in passages))
    for index in range(len(stream)):
        with stream.open(index) as block:
            for hidden in states:
                hidden.copy_(block(hidden))
        progress.step(f"block {index}")
    return stream.logits(torch.cat([hidden[0] for hidden in states]))


def predicted_nll(logits: Iterator[Tensor], passages: Sequence[Passage]) -> list[float]:
    """Return the summed negative log likelihood, nats, of the predicted tokens of each passage.

    Logits as `streamed_logits` gives them.
    """
    targets = torch.tensor([token for passage in passages for token in passage.ids[1:]])
    found = torch.empty(len(targets), dtype=torch.float64)
    start = 0
    for chunk in logits:
        here = slice(start, start := start + len(chunk))
        found[here] = cross_entropy(chunk, targets[here], reduction="none").double()
    parts = found.split([len(passage.ids) - 1 for passage in passages])
    return [float(part[passage.context - 1 :].sum()) for part, passage in zip(parts, passages, strict=True)]


def per_unit(
    sums: Sequence[float], theirs: Sequence[float], passages: Sequence[Passage], reference: str
) -> Quality:
    """Return the quality of a model per token of a reference.

    sums, theirs: summed negative log likelihoods, nats, of each passage, by the model and by the reference.
    reference: its name.
    """
    units, size = (
        sum(counts) for counts in zip(*((passage.units, passage.size) for passage in passages), strict=True)
    )
    return Quality(
        nll=math.fsum(sums) / units,
        nll_windows=tuple(total / passage.units for total, passage in zip(sums, passages, strict=True)),
        tokens=units,
        accuracy=None,
        per_token_of=reference,
        reference_nll=math.fsum(theirs) / units,
        bits_per_byte=math.fsum(sums) / (math.log(2) * size),
    )
