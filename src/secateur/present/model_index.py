"""Results in a model card, as the Hugging Face hub reads them.

`model-index` metadata, and a section of the text.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard

from secateur.core.card_front_matter import bare_card
from secateur.present.columns import plain
from secateur_runtime.errors import RecordError
from secateur_runtime.record import Record

BEGIN = "<!-- results by secateur -->"
END = "<!-- end of results by secateur -->"
_INNER = ("shift", "worse", "low", "high")
_TYPES = {"acc": "accuracy", "acc_norm": "accuracy", "next_token_accuracy": "accuracy"}
_KINDS = ("comprehension", "word prediction", "other")
_BIAS = ("crows_pairs", "winogender")


def with_results(card: str, name: str, ours: Sequence[Record], whole: Mapping[str, float]) -> str:
    """Return the card of the model called `name` with its records.

    What it said of results before is replaced, all else stays.

    whole: the same figures of the model it was pruned from, by the names of the records. Raises RecordError
    for a card whose metadata cannot be read.
    """
    try:
        logging.getLogger("huggingface_hub.repocard").setLevel(logging.ERROR)
        read = ModelCard(card or bare_card(name), ignore_metadata_errors=False)
        data: Any = read.data
        data.model_name = name
        data.eval_results = results(ours) or None
        said = str(read)
    except (ValueError, TypeError, yaml.YAMLError) as error:
        raise RecordError(
            f"the card's metadata cannot be read ({str(error).splitlines()[0]}): mend what is between its"
            " first two lines of ---"
        ) from None
    before, _, rest = said.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before.rstrip()}\n\n{_section(ours, whole)}\n{after.lstrip()}".rstrip() + "\n"


def results(records: Sequence[Record]) -> list[EvalResult]:
    """Return what goes into `model-index`: perplexity, tasks and bias; not what the machine decides."""
    return [result for record in records if (result := _result(record))]


def _result(record: Record) -> EvalResult | None:
    data, metric = _of(record)
    if not data:
        return None
    return EvalResult(
        task_type="text-generation",
        task_name="Text Generation",
        dataset_type=data,
        dataset_name=data,
        metric_type=_TYPES.get(metric, metric),
        metric_name=metric,
        metric_value=record.value,
        metric_args={
            "protocol": record.protocol,
            **({"standard_error": record.standard_error} if record.standard_error else {}),
        },
    )


def _of(record: Record) -> tuple[str, str]:
    """Return the data set and the metric that a record is of.

    No data set for sizes, speeds, and differences from another model.
    """
    parts = record.name.split("/")
    if parts[-1] in _INNER:
        return "", ""
    if record.name in ("perplexity", "next_token_accuracy"):
        return record.protocol.partition(" (")[0], record.name
    if parts[0] in _BIAS:
        return parts[0], "/".join(parts[1:]) or "share of stereotypes preferred"
    if "lm-eval" not in record.protocol:
        return "", ""
    task = [part for part in parts[:-1] if part not in _KINDS]
    return "/".join(task), parts[-1]


def _section(ours: Sequence[Record], whole: Mapping[str, float]) -> str:
    shown = [record for record in ours if record.name.split("/")[-1] not in _INNER]
    header = ["figure", "value", *(["before pruning"] if whole else []), "unit", "how it was measured"]
    rows = []
    for record in shown:
        before = [f"{whole[record.name]:.6g}" if record.name in whole else ""] if whole else []
        error = f" ± {record.standard_error:.2g}" if record.standard_error else ""
        rows.append(
            [
                record.name.replace("_", " "),
                f"{record.value:.6g}{error}",
                *before,
                record.unit,
                record.protocol,
            ]
        )
    return (
        f"{BEGIN}\n## Results\n\nMeasured by Secateur, not verified by anybody"
        f" else.\n\n{plain(header, rows)}{END}"
    )
