"""Hub ids: what is downloaded, and one line for each way in which that fails."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conftest import Maker

from secateur.model.formats.hub import download
from secateur.model.formats.open_source import open_source
from secateur_runtime.errors import SourceError


def test_a_hub_id_that_is_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        SourceError, match=r"org/no-such-model: not on this machine, and the hub cannot be reached"
    ) as caught:
        open_source("org/no-such-model")
    assert "\n" not in str(caught.value)


def test_a_hub_id_that_is_here(tiny: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}

    def snapshot(ref: str, allow_patterns: list[str]) -> str:
        seen[ref] = allow_patterns
        return str(tiny("llama"))

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    source = open_source("org/name")
    assert source.ref == "org/name"
    assert "*.safetensors" in seen["org/name"]
    assert not any("bin" in pattern or pattern == "*" for pattern in seen["org/name"])


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("GatedRepoError", "its licence must be accepted first: .* `hf auth login`"),
        ("RepositoryNotFoundError", "neither a folder here nor a model on the hub: check the spelling"),
    ],
)
def test_a_refusal_of_the_hub_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, kind: str, message: str
) -> None:
    import huggingface_hub.errors
    from httpx import Request, Response

    error = getattr(huggingface_hub.errors, kind)

    def refuse(ref: str, allow_patterns: list[str]) -> str:
        del ref, allow_patterns
        raise error("no", response=Response(403, request=Request("GET", "https://hub")))

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(SourceError, match=f"^org/name: {message}") as caught:
        download("org/name")
    assert "\n" not in str(caught.value)
