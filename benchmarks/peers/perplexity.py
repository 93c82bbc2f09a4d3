"""Perplexity of a Hugging Face folder on WikiText-2, whole model in fp32, as one JSON line.

Protocol: tokenise the whole file once without special tokens, cut it into windows of 2,048 tokens
without overlap, take the first 20, average the negative log likelihood over the 2,047 predicted
tokens of each, and exponentiate.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import torch
from make_inputs import shared_folder
from transformers import AutoModelForCausalLM, AutoTokenizer


@torch.inference_mode()
def perplexity(folder: Path, text: str, windows: int, length: int) -> float:
    """Perplexity over the first `windows` windows of `length` tokens of `text`."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"][: windows * length]
    total = 0.0
    for window in torch.tensor(ids).view(windows, length):
        logits = model(window[None], use_cache=False).logits[0, :-1]
        total += torch.nn.functional.cross_entropy(logits, window[1:], reduction="sum").item()
    return math.exp(total / (windows * (length - 1)))


def main() -> None:
    """Print the perplexity of one folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--text", type=Path, help="default: wiki.test.raw of the shared folder")
    parser.add_argument("--windows", type=int, default=20)
    parser.add_argument("--length", type=int, default=2048)
    args = parser.parse_args()
    text = args.text or shared_folder() / "data/wikitext-2/wiki.test.raw"
    with text.open(encoding="utf-8", newline="") as file:
        value = perplexity(args.model, file.read(), args.windows, args.length)
    print(json.dumps({"model": str(args.model), "perplexity": round(value, 4)}))


if __name__ == "__main__":
    main()
