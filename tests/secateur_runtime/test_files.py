from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from secateur_runtime.errors import OutputError
from secateur_runtime.files import JOB, LOCK, claimed, locked, refuse_existing, write_text, written_whole


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


HOLDS = """
import sys
from pathlib import Path
from secateur_runtime.files import claimed

with claimed(Path(sys.argv[1]), Path("out"), {"a": 1}, overwrite=False):
    Path(sys.argv[1], "done").touch()
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_killed_process_leaves_its_work_and_no_lock(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDS, str(tmp_path / "work")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with (
            pytest.raises(OutputError, match=r"^another run is writing out: wait for it to end$"),
            claimed(tmp_path / "work", Path("out"), {"a": 1}, overwrite=False),
        ):
            pytest.fail("held twice")
        os.kill(process.pid, signal.SIGKILL)
    assert {path.name for path in (tmp_path / "work").iterdir()} == {JOB, LOCK, "done"}
    with claimed(tmp_path / "work", Path("out"), {"a": 1}, overwrite=False):
        assert (tmp_path / "work" / "done").exists()


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("error", [ValueError("no"), OSError(28, "No space left")])
def test_work_that_fails_is_kept_if_asked(tmp_path: Path, error: Exception, *, keep: bool) -> None:
    expected = OutputError if isinstance(error, OSError) else ValueError
    with (
        pytest.raises(expected, match=r"no|cannot write out: No space left"),
        claimed(tmp_path / "work", Path("out"), {}, overwrite=False, keep=keep),
    ):
        raise error
    assert (tmp_path / "work").exists() == keep


def test_work_of_another_job_is_replaced_only_if_asked(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    with claimed(folder, Path("out"), {"a": 1}, overwrite=False):
        (folder / "done").touch()
    with pytest.raises(OutputError, match="holds an unfinished run with other settings"):
        claimed(folder, Path("out"), {"a": 2}, overwrite=False).__enter__()
    with claimed(folder, Path("out"), {"a": 2}, overwrite=True):
        assert {path.name for path in folder.iterdir()} == {JOB, LOCK}


@pytest.mark.parametrize("left", [True, False])
def test_a_lock_that_its_owner_took_away_is_not_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, left: bool
) -> None:
    """Another run ends after this one has opened the lock file, and before it locks it."""

    def ended(handle: object, how: int) -> None:
        (tmp_path / LOCK).unlink()
        if left:
            (tmp_path / LOCK).touch()

    monkeypatch.setattr(fcntl, "flock", ended)
    with pytest.raises(OutputError, match="another run is writing out"):
        locked(tmp_path, Path("out"))


def test_a_file_system_without_locks_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(handle: object, how: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refused)
    with pytest.raises(OutputError, match=r"^cannot lock .*: No locks available$"):
        locked(tmp_path, Path("out"))
