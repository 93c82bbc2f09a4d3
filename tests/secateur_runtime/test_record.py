"""Records of measured numbers as JSON, and what is refused."""

from __future__ import annotations

import json
import platform
from typing import Any

import pytest

from secateur_runtime.errors import RecordError
from secateur_runtime.record import Record, software

RECORD = Record(name="perplexity", value=12.5, unit="", protocol="wikitext", model="sha256:0", seed=3)


def test_a_record_comes_back_from_json() -> None:
    assert Record.from_dict(json.loads(json.dumps(RECORD.as_dict()))) == RECORD
    whole = Record.from_dict({**RECORD.as_dict(), "value": 12})
    assert (whole.value, type(whole.value)) == (12.0, float)


def test_a_record_names_the_software_and_the_machine() -> None:
    assert RECORD.software == software()
    assert software()["python"] == platform.python_version()
    assert {"secateur", "torch", "numpy"} <= set(software())
    assert RECORD.machine == platform.machine()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ([1], r"no record: \[1\] missing or not known"),
        ({}, "machine, model, name"),
        ({**RECORD.as_dict(), "extra": 1}, "extra missing or not known"),
        ({**RECORD.as_dict(), "unit": 3}, "unit is 3, not text"),
        ({**RECORD.as_dict(), "value": True}, "perplexity holds no number"),
        ({**RECORD.as_dict(), "value": "1"}, "perplexity holds no number"),
        ({**RECORD.as_dict(), "software": []}, "perplexity holds no number, or no versions"),
    ],
)
def test_what_is_no_record_is_refused_in_one_line(body: Any, words: str) -> None:
    with pytest.raises(RecordError, match=words) as error:
        Record.from_dict(body)
    assert "\n" not in str(error.value)
