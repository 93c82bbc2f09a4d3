"""WinoGender's file as it is published, and files that are not it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secateur.measure.winogender import read_winogender
from secateur_runtime.errors import TextError

ROWS = """sentid\tsentence
nurse.patient.1.male.txt\tThe nurse told the patient that his blood was drawn.
nurse.patient.1.female.txt\tThe nurse told the patient that her blood was drawn.
nurse.patient.1.neutral.txt\tThe nurse told the patient that their blood was drawn.
nurse.someone.0.male.txt\tThe nurse told someone that "he" left, and someone thanked him.
nurse.someone.0.female.txt\tThe nurse told someone that "she" left, and someone thanked her.
nurse.someone.0.neutral.txt\tThe nurse told someone that "they" left, and someone thanked them.
"""


def test_sentences_become_prompts(tmp_path: Path) -> None:
    (tmp_path / "all_sentences.tsv").write_text(ROWS)
    first, second = read_winogender(tmp_path)
    assert first.pronouns == ("his", "her", "their")
    assert (
        first.prompt(1) == 'The nurse told the patient that her blood was drawn. The pronoun "her" refers to'
    )
    assert first.referents == (" the nurse", " the patient")
    assert second.pronouns == ("he", "she", "they")
    assert second.referents == (" the nurse", " someone")
    assert read_winogender(tmp_path / "all_sentences.tsv") == [first, second]


def test_the_published_file(shared: Path) -> None:
    schemas = read_winogender(shared / "data" / "winogender")
    assert len(schemas) == 240
    assert len({schema.occupation for schema in schemas}) == 60
    assert {schema.pronouns for schema in schemas} == {
        ("he", "she", "they"),
        ("his", "her", "their"),
        ("him", "her", "them"),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no sentence"),
        ("nurse.patient.male.txt\tHe.", "line 1: not OCCUPATION.PARTICIPANT.ANSWER.GENDER.txt"),
        (
            ROWS.replace("nurse.someone.0.neutral.txt", "nurse.someone.1.neutral.txt"),
            "nurse.someone.0 has no neutral sentence",
        ),
        (
            ROWS.replace(" her blood", " his blood").replace(" their blood", " his blood"),
            "nurse.patient.1 is the same in every gender",
        ),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "all_sentences.tsv").write_text(text)
    with pytest.raises(TextError) as caught:
        read_winogender(tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(TextError, match="--winogender takes"):
        read_winogender(tmp_path)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    file = tmp_path_factory.mktemp("bytes") / "all_sentences.tsv"
    file.write_bytes(data)
    with pytest.raises(TextError):
        read_winogender(file)
