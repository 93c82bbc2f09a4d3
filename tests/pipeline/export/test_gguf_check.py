"""A file that llama.cpp does not load, tokenizes or computes as the model is not left in place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Maker

from secateur.export.gguf.rope import Rope, rope_of
from secateur.export.gguf.tokenizer import tokenizer_fields
from secateur.model.formats.gguf.loaders import GgufLoader
from secateur.pipeline.export.gguf import export
from secateur_runtime.errors import VerificationError

pytest.importorskip("xllamacpp", reason="pip install 'secateur[llamacpp]'")

FIELDS = "secateur.export.gguf.description.tokenizer_fields"


def test_a_file_that_computes_otherwise_is_not_left(
    tiny: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(loader: GgufLoader, settings: dict[str, Any], head_dim: int) -> Rope:
        return Rope({**rope_of(loader, settings, head_dim).fields, "rope.freq_base": 5e3})

    monkeypatch.setattr("secateur.export.gguf.description.rope_of", wrong)
    for kind in ("f32", "q8_0"):
        with pytest.raises(
            VerificationError, match="computes other probabilities from the file than the model gives"
        ) as raised:
            export(str(tiny("llama")), tmp_path / "a.gguf", kind=kind)
        assert raised.value.exit_code == 3
    assert not list(tmp_path.iterdir())


def test_a_file_that_does_not_load_is_not_left(
    tiny: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FIELDS, lambda *_: {"tokenizer.ggml.model": "nonsense"})
    with pytest.raises(VerificationError, match=r"llama.cpp cannot load a.partial.gguf: .*nonsense"):
        export(str(tiny("llama")), tmp_path / "a.gguf")
    assert not list(tmp_path.iterdir())


def test_a_tokenizer_that_cuts_otherwise_is_found(
    tiny: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        FIELDS, lambda *given: tokenizer_fields(*given) | {"tokenizer.ggml.merges": ["t h", "h e"]}
    )
    with pytest.raises(VerificationError, match="cuts text into other tokens"):
        export(str(tiny("llama")), tmp_path / "a.gguf")
