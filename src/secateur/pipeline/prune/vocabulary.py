"""Decide which tokens stay: those that a text uses most, with what they are merged from."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

from secateur.calibrate.calibration import Calibration, calibration_tokens
from secateur.calibrate.text import calibration_digest, read_text
from secateur.core.context import RunContext
from secateur.core.estimated_size import EstimatedSize
from secateur.core.execution import Execution
from secateur.core.footprint import Footprint, footprint
from secateur.core.graph import Graph
from secateur.core.plan import Plan
from secateur.core.target import Target, refuse_if_met
from secateur.model.handle import ModelHandle
from secateur.model.tokenizer_pruning import Vocabulary, vocabulary
from secateur.pipeline.prune.kinds import pruning
from secateur.tensors.storage_dtype import storage_type
from secateur_runtime.errors import TargetError, UnreachableTargetError, UsageError

_PIECE = 1 << 16
"""Characters that are tokenized at once."""
_USUAL = 1e-5
"""Share of a text that a character must have so that tokens spelled with it are likely to be met in more of
the same.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocab:
    """How many tokens go: either `ratio` or `target`.

    ratio: share of the tokens that goes.
    target: budgets, as `Target.parse` reads them, all of which must hold; the most tokens that meet them
    stay.
    align: the number of tokens that stay is a multiple of it.
    dtype: in which type the model will be stored, for budgets in bytes.
    """

    ratio: float | None = None
    target: str | None = None
    align: int = 32
    dtype: str = "auto"

    def check(self) -> None:
        """Raise UsageError or TargetError for options that cannot work with any model."""
        if (self.ratio is None) == (self.target is None):
            raise UsageError("say how many tokens go: either --ratio 0.5 or --target params=80%")
        if self.ratio is not None and not 0 < self.ratio < 1:
            raise UsageError(f"--ratio {self.ratio} is outside (0, 1)")
        if self.align < 1:
            raise UsageError(f"--align {self.align} is below 1")
        if self.budgets and any(limit.metric == "ratio" for limit in self.budgets.limits):
            raise TargetError(
                "ratio= is of block parameters, and --method vocab takes none: give params=, size= or ram=,"
                " or --ratio for a share of the tokens"
            )

    @property
    def budgets(self) -> Target | None:
        """The target; raises TargetError for text that is none."""
        return None if self.target is None else Target.of(self.target)


def _fewer_tokens(goal: Vocab, size: EstimatedSize, _graph: Graph) -> EstimatedSize:
    """Return the size of a model that loses tokens by `goal`."""
    if goal.budgets:
        left = min(size.left(limit) for limit in goal.budgets.limits)
        return replace(size, outside=left - size.inside)
    return replace(size, outside=size.outside * (1 - (goal.ratio or 0.0)))


@pruning("vocab", goal=Vocab, estimate=_fewer_tokens, passes=0.0, changes_tokens=True)
def decide_vocab(model: ModelHandle, vocab: Vocab, calibration: Calibration, context: RunContext) -> Plan:
    """Decide which tokens go: those that the calibration text uses most stay.

    The whole of it is counted, or what is sampled for `self`.

    Raises UsageError for options that cannot work, TargetError naming the nearest target if the one asked for
    is out of reach, UnsupportedModelError for a tokenizer that is not byte-pair encoding.
    """
    vocab.check()
    known = vocabulary(model.source.tokenizer(), model.source.config)
    size = _size(model.graph, vocab, len(known.fixed))
    counts, characters, said = _counted(model, calibration, context)
    kept = chosen(known, counts, _usual_tokens(known, model.source.tokenizer(), characters), size)
    if len(kept) < size:
        # Rows that belong to no token and only round the matrix up.
        kept = sorted([*kept, *list({*range(model.graph.vocab.size)}.difference(kept))[: size - len(kept)]])
    made_by = {
        "target": str(vocab.budgets or f"{vocab.ratio:g} of vocab"),
        "units": "vocab",
        "align": str(vocab.align),
        "dtype": vocab.dtype if vocab.dtype != "auto" else "",
        **said,
        "seed": str(context.seed),
        "secateur": version("secateur"),
    }
    return Plan(
        model=model.digest,
        keep={model.graph.vocab.name: tuple(kept)},
        execution=Execution(seed=context.seed, dtype=vocab.dtype),
        made_by={key: value for key, value in made_by.items() if value},
    )


def chosen(known: Vocabulary, counts: Mapping[int, int], usual: Iterable[int], size: int) -> list[int]:
    """Return `size` ids, ascending, or all that have a token.

    Fixed ones, then by `counts`, then the `usual` ones and the others by id.

    A token takes its ancestors with it, and stays out where they do not fit.
    """
    kept = set(known.fixed)
    expected = set(usual)
    for index in sorted(known.tokens, key=lambda one: (-counts.get(one, 0), one not in expected, one)):
        if len(kept) >= size:
            break
        missing = set() if index in kept else {index, *known.ancestors(index)} - kept
        if len(kept) + len(missing) <= size:
            kept |= missing
    return sorted(kept)


def _size(graph: Graph, vocab: Vocab, fixed: int) -> int:
    """Return how many tokens stay; raises UsageError where nothing goes, TargetError where not enough can."""
    step = vocab.align
    whole = graph.vocab.size
    least = -(-fixed // step)
    most = (whole - 1) // step
    if least > most:
        raise UsageError(
            f"no token can go: {fixed:,} of {whole:,} are needed to spell any text, and with --align {step}"
            " that is all of them"
        )
    if vocab.ratio is None:
        return step * _steps(graph, vocab, least, most)
    wanted = int((1 - vocab.ratio) * whole / step + 1e-9)
    if wanted < least:
        can = math.floor(1000 * (1 - least * step / whole)) / 1000
        raise UsageError(
            f"--ratio {vocab.ratio:g} leaves {wanted * step:,} tokens, and {fixed:,} are needed to spell any"
            f" text: ask for at most {can:g}"
        )
    return step * min(wanted, most)


def _steps(graph: Graph, vocab: Vocab, least: int, most: int) -> int:
    """Return the largest number of steps, from `least` to `most`, that meets the target.

    Raises as `_size` does.
    """
    target = vocab.budgets
    width = storage_type(vocab.dtype, graph.tensors).itemsize
    assert target is not None
    whole = footprint(graph, {}, (), width)

    def sized(steps: int) -> Footprint:
        return footprint(graph, {graph.vocab.name: range(steps * vocab.align)}, (), width)

    refuse_if_met(target, whole, with_bytes=True)
    if not target.met(sized(least), whole):
        raise UnreachableTargetError(
            f"{target} is out of reach with --method vocab: the nearest is"
            f" {target.nearest(sized(least), whole)}"
        )
    return (
        least
        - 1
        + bisect_left(range(least, most + 1), True, key=lambda steps: not target.met(sized(steps), whole))
    )


def _counted(
    model: ModelHandle, calibration: Calibration, context: RunContext
) -> tuple[Counter[int], Counter[str], dict[str, str]]:
    """Return how often the text has each token and each character, and what a plan says of it."""
    tokenizer = model.source.tokenizer()
    if calibration.text == "self":
        tokens = calibration_tokens(model, calibration, context.seed)
        said = {
            "samples": str(calibration.samples),
            "window": str(calibration.window),
            "counted_digest": calibration_digest(tokens),
        }
        ids = tokens.flatten().tolist()
        return Counter(ids), Counter("".join(tokenizer.batch_decode(tokens))), {"counted": "self", **said}
    text = read_text(calibration.text)
    counts = Counter[int]()
    pieces = range(0, len(text.text), _PIECE)
    context.progress.start("count tokens", len(pieces))
    for start in pieces:
        counts.update(
            tokenizer(text.text[start : start + _PIECE], add_special_tokens=False, verbose=False)["input_ids"]
        )
        context.progress.step()
    return counts, Counter(text.text), {"counted": calibration.text, "counted_digest": text.digest}


def _usual_tokens(known: Vocabulary, tokenizer: Any, characters: Counter[str]) -> Iterator[int]:
    """Yield the ids of the tokens whose characters the text has often."""
    least = _USUAL * characters.total()
    usual = {character for character, count in characters.items() if count >= least}
    for index, text in zip(
        known.tokens,
        tokenizer.backend_tokenizer.decode_batch(
            [[index] for index in known.tokens], skip_special_tokens=False
        ),
        strict=True,
    ):
        if text and usual.issuperset(text):
            yield index
