"""The log: entries by quarter in `docs/log/`, and `LOG.md` as their index by topic."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
ENTRIES = ROOT / "docs" / "log"
LINK = re.compile(r"\]\((docs/log/[^)#]+)#([^)]+)\)")
ENTRY_LINE = re.compile(
    r"^- \[(?P<heading>.+)\]\((?P<file>docs/log/[^)#]+)#(?P<anchor>[^)]+)\)$", re.MULTILINE
)

DATED = re.compile(r"\d{4}-(0[1-9]|1[0-2])-\d\d: .+\?")


def quarter(heading: str) -> str:
    """Return the name of the file that an entry belongs to."""
    year, month = map(int, heading.split("-")[:2])
    return f"{year}-q{(month + 2) // 3}"


def anchor(heading: str) -> str:
    """Return the anchor that the pages of a repository give a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def headings(file: Path) -> list[str]:
    """Return the headings of the entries of a quarter, as they stand there."""
    return re.findall(r"^## (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)


def index_line(file: Path, heading: str) -> str:
    """Return the line of the index for an entry."""
    return f"- [{heading}](docs/log/{file.name}#{anchor(heading)})"


def entries() -> dict[str, Path]:
    """Return the file of each heading."""
    return {heading: file for file in sorted(ENTRIES.glob("*.md")) for heading in headings(file)}


def topics() -> dict[str, str]:
    """Return the text of each topic of the index."""
    parts = re.split(r"^## (.+)$", (ROOT / "LOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_headings_are_dated_questions_in_the_file_of_their_quarter_newest_first() -> None:
    files = sorted(ENTRIES.glob("*.md"))
    assert files
    for file in files:
        found = headings(file)
        assert [heading for heading in found if not DATED.fullmatch(heading)] == []
        assert {quarter(heading) for heading in found} == {file.stem}
        days = [heading[:10] for heading in found]
        assert days == sorted(days, reverse=True)


def test_anchors_of_entries_differ() -> None:
    for file in ENTRIES.glob("*.md"):
        assert max(Counter(map(anchor, headings(file))).values()) == 1


def test_the_index_names_every_entry_once_and_nothing_else() -> None:
    index = (ROOT / "LOG.md").read_text(encoding="utf-8")
    listed = Counter(match.group() for match in ENTRY_LINE.finditer(index))
    wanted = {index_line(file, heading) for heading, file in entries().items()}
    lacking = sorted(wanted - listed.keys())
    assert not lacking, "add to a topic of LOG.md:\n" + "\n".join(lacking)
    assert sorted(listed.keys() - wanted) == [], "no such entry in docs/log"
    assert [line for line, times in listed.items() if times > 1] == []


def test_every_topic_opens_with_one_best_figure_that_links_to_an_entry_of_the_topic() -> None:
    found = topics()
    assert len(found) > 10
    for title, text in found.items():
        best, *rest = text.strip().splitlines()
        links = LINK.findall(best)
        assert best.startswith("Best: "), title
        assert len(links) == 1, title
        assert links[0] in LINK.findall("\n".join(rest)), title
        assert not any(line.startswith("Best: ") for line in rest), title


def test_anchor_keeps_hyphens_and_drops_other_signs() -> None:
    assert anchor("2026-11-24: FFN -20 %, `auto`?") == "2026-11-24-ffn--20--auto"
