"""A folder appears whole or not at all, and a killed run goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from secateur.model.written.checkpoint import writing
from secateur_runtime.errors import OutputError

JOB = {"plan": "a"}
TENSORS = {"w": torch.ones(2)}


def test_publish_moves_everything_at_once(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with writing(out, JOB, 1, overwrite=False) as checkpoint:
        checkpoint.write(0, TENSORS)
        assert not out.exists()
        checkpoint.publish()
    assert [path.name for path in out.iterdir()] == ["model-00001-of-00001.safetensors"]
    assert torch.equal(load_file(out / "model-00001-of-00001.safetensors")["w"], TENSORS["w"])
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="boom"),
        writing(tmp_path / "out", JOB, 2, overwrite=False) as checkpoint,
    ):
        checkpoint.write(0, TENSORS)
        raise ValueError("boom")
    assert not list(tmp_path.iterdir())


def test_an_interrupt_keeps_finished_shards_for_the_same_job_only(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt), writing(out, JOB, 3, overwrite=False) as checkpoint:
        checkpoint.write(0, TENSORS)
        raise KeyboardInterrupt
    with (
        pytest.raises(OutputError, match="unfinished run with other settings"),
        writing(out, {"plan": "b"}, 3, overwrite=False),
    ):
        pass
    with writing(out, JOB, 3, overwrite=False) as checkpoint:
        assert checkpoint.finished() == 1
    with writing(out, {"plan": "b"}, 3, overwrite=True) as checkpoint:
        assert checkpoint.finished() == 0


def test_two_runs_do_not_write_one_folder(tmp_path: Path) -> None:
    with (
        writing(tmp_path / "out", JOB, 1, overwrite=False) as first,
        pytest.raises(OutputError, match="another run is writing"),
        writing(tmp_path / "out", JOB, 1, overwrite=True),
    ):
        pass
    assert first.partial.exists()


@pytest.mark.parametrize("overwrite", [True, False])
def test_what_is_not_a_model_is_never_replaced(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError), writing(tmp_path, JOB, 1, overwrite=overwrite):
        pass
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_an_existing_model_is_replaced_only_when_asked(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "config.json").write_text("{}")
    with pytest.raises(OutputError, match="--overwrite"), writing(out, JOB, 1, overwrite=False):
        pass
    with writing(out, JOB, 1, overwrite=True) as checkpoint:
        checkpoint.write(0, TENSORS)
        checkpoint.publish()
    assert not (out / "config.json").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_file_in_the_way_of_the_parent_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(OutputError, match="cannot write"),
        writing(tmp_path / "file" / "out", JOB, 1, overwrite=False),
    ):
        pass
