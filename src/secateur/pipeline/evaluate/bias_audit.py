"""Audit how alike a model treats groups of people, and whether pruning moved that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from secateur.core.context import Arithmetic
from secateur.core.progress import Progress, Silent
from secateur.measure.social_bias import Finding, Series, findings
from secateur.measure.task_scores import require_lm_eval
from secateur.measure.winogender import GENDERS, Schema, read_winogender
from secateur.model.full_model import load_whole
from secateur.model.handle import open_registered
from secateur.model.written.plan_file import plan_digest
from secateur.runtime.token_scorer import TorchScorer
from secateur.tensors.precision import arithmetic
from secateur_runtime.errors import UsageError
from secateur_runtime.record import Record

if TYPE_CHECKING:
    from secateur.measure.lm_eval_model import LmEvalModel

CROWS = "crows_pairs_english"
_MALE = GENDERS.index("male")
_FEMALE = GENDERS.index("female")


@dataclass(frozen=True, slots=True)
class Audit:
    """What an audit found. digest, plan: of the model, as in `TaskResult`; protocol: what was asked."""

    model: str
    digest: str
    plan: str
    reference: str | None
    protocol: str
    findings: tuple[Finding, ...]

    def records(self) -> list[Record]:
        """Return the model's figures as records."""
        return [found.record(self.digest, self.plan, self.protocol) for found in self.findings]

    def verdict(self, most: float) -> str:
        """Return `fail` if one figure fails against `most`, `open` if one or all are undecided, else `pass`.

        See `Finding.verdict`.
        """
        given = {found.verdict(most) for found in self.findings}
        return next((each for each in ("fail", "open", "pass") if each in given), "open")


def audit_bias(
    src: str,
    reference: str | None = None,
    *,
    winogender: str | Path | None = None,
    limit: int | None = None,
    datasets: str | Path | None = None,
    compute: Arithmetic = "float32",
    progress: Progress | None = None,
) -> Audit:
    """Ask the model `src`, and its parent `reference` where one is given, the same paired sentences.

    CrowS-Pairs (lm-eval's task, every category apart): share of pairs whose stereotyping sentence is the
    likelier one; 0.5 is neutral. WinoGender (`all_sentences.tsv`, or the folder that holds it, in
    `winogender`): perplexity by gender; its gap, the mean difference between she and he in nats per token;
    and how often the model takes the pronoun for the other person when he becomes she.
    limit: pairs and sentences from the first. datasets: as in `evaluate_tasks`.

    Raises MissingExtraError without lm-eval, TextError for data that cannot be read, UsageError for other
    vocabularies.
    """
    require_lm_eval("--bias")
    models = [open_registered(each) for each in (src, reference) if each]
    if models[-1].graph.vocab_size != models[0].graph.vocab_size:
        raise UsageError(
            f"{reference} has another vocabulary than {src}: their predictions cannot be compared"
        )
    ours, *theirs = [
        bias_answers(
            each, winogender=winogender, limit=limit, datasets=datasets, compute=compute, progress=progress
        )
        for each in (src, reference)
        if each
    ]
    return audited(ours, *theirs)


@dataclass(frozen=True, slots=True)
class Answers:
    """What a model answered to every item of an audit. digest, plan, protocol: as in `Audit`."""

    model: str
    digest: str
    plan: str
    protocol: str
    series: dict[str, Series]


def audited(ours: Answers, theirs: Answers | None = None) -> Audit:
    """Return what the answers of a model come to, compared with those of its parent to the same items."""
    series, parents = _with_changes(ours.series, theirs.series) if theirs else (ours.series, None)
    return Audit(
        ours.model,
        ours.digest,
        ours.plan,
        theirs.model if theirs else None,
        ours.protocol,
        tuple(findings(series, parents)),
    )


def bias_answers(
    src: str,
    *,
    winogender: str | Path | None = None,
    limit: int | None = None,
    datasets: str | Path | None = None,
    compute: Arithmetic = "float32",
    progress: Progress | None = None,
) -> Answers:
    """Ask one model what `audit_bias` asks, and return its answers one by one; raises as that does."""
    require_lm_eval("--bias")
    from secateur.measure.lm_eval_model import LmEvalModel, run
    from secateur.measure.lm_eval_tasks import load_tasks

    schemas = read_winogender(Path(winogender))[:limit] if winogender else []
    model = open_registered(src)
    with arithmetic(compute):
        harness = LmEvalModel(TorchScorer(load_whole(model)), model.source.tokenizer(), progress or Silent())
        (score,), items = run(load_tasks([CROWS], Path(datasets) if datasets else None), harness, limit=limit)
        series = _pairs(score["pct_stereotype"].items, [str(item["bias_type"]) for item in items[CROWS]])
        if schemas:
            series |= _perplexities(harness, schemas) | _choices(harness, schemas)
    protocol = score.records(model.digest)[0].protocol + (
        f"; {len(schemas)} WinoGender sentences in three genders" if schemas else ""
    )
    return Answers(src, model.digest, plan_digest(model), protocol, series)


def _pairs(answers: Sequence[float], kinds: Sequence[str]) -> dict[str, Series]:
    """Return the answers to all pairs of CrowS-Pairs, and to each category."""
    found = {"crows_pairs": _crows(answers, range(len(answers)))}
    for kind in sorted(set(kinds)):
        found[f"crows_pairs/{kind}"] = _crows(
            answers, [place for place, each in enumerate(kinds) if each == kind]
        )
    return found


def _crows(answers: Sequence[float], places: Sequence[int]) -> Series:
    return Series(tuple(answers[place] for place in places), tuple(map(str, places)), "share", 0.5)


def _perplexities(harness: LmEvalModel, schemas: Sequence[Schema]) -> dict[str, Series]:
    """Return nats per token of each sentence by gender, and the gap between the genders."""
    texts = [sentence for schema in schemas for sentence in schema.sentences]
    scores = harness.loglikelihood([_request("", text) for text in texts])
    counts = [len(harness.tok_encode(text, add_special_tokens=False)) for text in texts]
    nats = np.array([-logprob / count for (logprob, _), count in zip(scores, counts, strict=True)]).reshape(
        -1, len(GENDERS)
    )
    occupations = tuple(schema.occupation for schema in schemas)
    found = {
        f"winogender/nll/{gender}": Series(tuple(nats[:, column].tolist()), occupations, "nats/token")
        for column, gender in enumerate(GENDERS)
    }
    return found | {
        "winogender/gap": Series(
            tuple((nats[:, _FEMALE] - nats[:, _MALE]).tolist()), occupations, "nats/token", 0.0
        )
    }


def _choices(harness: LmEvalModel, schemas: Sequence[Schema]) -> dict[str, Series]:
    """Return whom the model takes the pronoun for (1: the occupation), by gender, and the share of flips.

    A flip: the choice changes between he and she.
    """
    genders = (_MALE, _FEMALE)
    requests = [
        _request(schema.prompt(gender), who)
        for schema in schemas
        for gender in genders
        for who in schema.referents
    ]
    likely = np.array([logprob for logprob, _ in harness.loglikelihood(requests)]).reshape(
        -1, len(genders), 2
    )
    occupation = (likely[:, :, 0] > likely[:, :, 1]).astype(float)
    flips = (occupation[:, 0] != occupation[:, 1]).astype(float)
    clusters = tuple(schema.occupation for schema in schemas)
    found = {
        f"winogender/choice/{GENDERS[gender]}": Series(
            tuple(occupation[:, column].tolist()), clusters, "share"
        )
        for column, gender in enumerate(genders)
    }
    return found | {"winogender/flips": Series(tuple(flips.tolist()), clusters, "share", 0.0)}


def _request(context: str, continuation: str) -> Any:
    return SimpleNamespace(args=(context, continuation))


def _with_changes(
    ours: dict[str, Series], theirs: dict[str, Series]
) -> tuple[dict[str, Series], dict[str, Series]]:
    """Add, for each gender, the share of choices that differ from the parent's."""
    for gender in (GENDERS[_MALE], GENDERS[_FEMALE]):
        if f"winogender/choice/{gender}" in ours:
            left = ours[f"winogender/choice/{gender}"]
            right = theirs[f"winogender/choice/{gender}"]
            changed = tuple(float(one != other) for one, other in zip(left.values, right.values, strict=True))
            ours = ours | {f"winogender/changed/{gender}": Series(changed, left.clusters, "share")}
            theirs = theirs | {
                f"winogender/changed/{gender}": Series((0.0,) * len(changed), left.clusters, "share")
            }
    return ours, theirs
