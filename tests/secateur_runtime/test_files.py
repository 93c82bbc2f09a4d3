from __future__ import annotations

from pathlib import Path

import pytest

from secateur_runtime.errors import OutputError
from secateur_runtime.files import refuse_existing, write_text, written_whole


def test_a_file_is_there_whole_and_alone(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "a.json", "é\n", parents=True)
    assert (tmp_path / "new" / "a.json").read_bytes() == "é\n".encode()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.json"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_what_fails_half_way_leaves_what_was_there(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.json"
    path.write_text("before")
    with pytest.raises(error), written_whole(path) as scratch:
        scratch.write_text("half")
        raise error
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place, parents in ((tmp_path / "file", True), (tmp_path / "file", False), (tmp_path / "none", False)):
        with pytest.raises(OutputError, match=r"cannot write .*a\.json: \w") as caught:
            write_text(place / "a.json", "", parents=parents)
        assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_is_there_stays_unless_asked(tmp_path: Path) -> None:
    refuse_existing(tmp_path / "new", overwrite=False)
    refuse_existing(tmp_path, overwrite=True)
    with pytest.raises(OutputError, match="exists: choose another --output, or pass --overwrite"):
        refuse_existing(tmp_path, overwrite=False)
