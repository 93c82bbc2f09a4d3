"""WinoGender sentences (Rudinger et al., arXiv:1804.09301): the same sentence with he, she and they."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from secateur_runtime.errors import TextError

FILE = "all_sentences.tsv"
GENDERS = ("male", "female", "neutral")


@dataclass(frozen=True, slots=True)
class Schema:
    """One sentence in the three genders of `GENDERS`, its pronouns, and the two people that they may mean."""

    occupation: str
    participant: str
    sentences: tuple[str, str, str]
    pronouns: tuple[str, str, str]

    def prompt(self, gender: int) -> str:
        """Return the text that ends where one of `referents` must follow."""
        return f'{self.sentences[gender]} The pronoun "{self.pronouns[gender]}" refers to'

    @property
    def referents(self) -> tuple[str, str]:
        """What may follow the prompt: the occupation, the participant."""
        return f" the {self.occupation}", (
            " someone" if self.participant == "someone" else f" the {self.participant}"
        )


def read_winogender(path: Path) -> list[Schema]:
    """Read `all_sentences.tsv` (or the folder that holds it).

    `OCCUPATION.PARTICIPANT.ANSWER.GENDER.txt`, tab, sentence.

    Raises TextError for a file that is missing, malformed, or lacks a gender of a sentence.
    """
    file = path / FILE if path.is_dir() else path
    found: dict[tuple[str, str, str], dict[str, str]] = {}
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            for number, row in enumerate(csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE), 1):
                if row[:1] != ["sentid"]:
                    occupation, participant, answer, gender = _identity(file, number, row)
                    found.setdefault((occupation, participant, answer), {})[gender] = row[1]
    except OSError as error:
        raise TextError(
            f"cannot read {file}: {error.strerror}; --winogender takes {FILE} or the folder that holds it"
        ) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise TextError(f"{file} is not a table in UTF-8: {error}") from None
    if not found:
        raise TextError(f"{file} holds no sentence")
    return [_schema(file, identity, sentences) for identity, sentences in found.items()]


def _identity(file: Path, number: int, row: list[str]) -> list[str]:
    parts = row[0].removesuffix(".txt").split(".") if row else []
    if len(row) != 2 or len(parts) != 4 or parts[3] not in GENDERS:
        raise TextError(
            f"{file}, line {number}: not OCCUPATION.PARTICIPANT.ANSWER.GENDER.txt and a sentence,"
            " separated by a tab"
        )
    return parts


def _schema(file: Path, identity: tuple[str, str, str], sentences: dict[str, str]) -> Schema:
    missing = [gender for gender in GENDERS if gender not in sentences]
    if missing:
        raise TextError(f"{file}: {'.'.join(identity)} has no {missing[0]} sentence")
    words = [sentences[gender].split() for gender in GENDERS]
    pronouns = next((each for each in zip(*words, strict=False) if len(set(each)) > 1), None)
    if pronouns is None:
        raise TextError(f"{file}: {'.'.join(identity)} is the same in every gender")
    he, she, they = (word.strip('.,;:"') for word in pronouns)
    return Schema(
        identity[0],
        identity[1],
        (sentences["male"], sentences["female"], sentences["neutral"]),
        (he, she, they),
    )
