"""Models by their Hugging Face hub id."""

from __future__ import annotations

from pathlib import Path

from secateur_runtime.errors import SourceError

_WANTED = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.model", "*.txt", "*.jinja"]


def download(ref: str) -> Path:
    """Return the local copy of a hub model, fetching weights, config and tokenizer.

    Raises SourceError where that fails.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(ref, allow_patterns=_WANTED))
    except GatedRepoError:
        reason = "its licence must be accepted first: do so on the model's page, then run `hf auth login`"
    except (RepositoryNotFoundError, HFValidationError):
        reason = (
            "neither a folder here nor a model on the hub: check the spelling (private models need `hf auth"
            " login`)"
        )
    # A download fails in as many ways as there are layers under it, and the HTTP library differs between hub
    # versions.
    except Exception as error:  # noqa: BLE001
        first = str(error).strip().partition("\n")[0].rstrip(".")
        reason = (
            f"not on this machine, and the hub cannot be reached ({first}): go online once, or give the path"
            " of a folder or a .gguf file"
        )
    raise SourceError(f"{ref}: {reason}")
