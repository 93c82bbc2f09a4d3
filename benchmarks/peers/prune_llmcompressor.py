"""Prune a model with llm-compressor on given token windows and print one JSON line."""

from __future__ import annotations

import os
import time

STARTED = time.perf_counter()
os.environ.setdefault("LLM_COMPRESSOR_LOG_LEVEL", "ERROR")  # it logs to stdout from import on

from importlib.metadata import version  # noqa: E402

import torch  # noqa: E402
from datasets import Dataset  # noqa: E402
from llmcompressor import oneshot  # noqa: E402
from llmcompressor.modifiers.pruning import WandaPruningModifier  # noqa: E402
from llmcompressor.modifiers.pruning.sparsegpt import SparseGPTModifier  # noqa: E402
from peer_common import make_parser, run  # noqa: E402
from transformers import PreTrainedModel  # noqa: E402

# method name -> (modifier, mask structure); "0:0" is llm-compressor's word for unstructured
METHODS = {
    "wanda-50": (WandaPruningModifier, "0:0"),
    "sparsegpt-50": (SparseGPTModifier, "0:0"),
    "wanda-2:4": (WandaPruningModifier, "2:4"),
    "sparsegpt-2:4": (SparseGPTModifier, "2:4"),
}

# A plain "lm_head" would match nothing: with targets=["Linear"] llm-compressor 0.14.0.1 calls the
# module "lm_head." (trailing dot), so the head, and the embedding tied to it, would be pruned too.
IGNORE = "re:.*lm_head"


def main() -> None:
    """Run one method."""
    parser = make_parser(__doc__ or "", list(METHODS))
    parser.add_argument("--ignore", default=IGNORE, help=f"default: {IGNORE}")
    args = parser.parse_args()
    modifier, mask_structure = METHODS[args.method]
    extra = {"dampening_frac": args.damp} if args.damp is not None else {}

    def prune(model: PreTrainedModel, tokens: torch.Tensor) -> PreTrainedModel:
        dataset = Dataset.from_dict(
            {"input_ids": tokens.tolist(), "attention_mask": torch.ones_like(tokens).tolist()}
        )
        recipe = modifier(
            sparsity=0.5, mask_structure=mask_structure, targets=["Linear"], ignore=[args.ignore], **extra
        )
        pruned: PreTrainedModel = oneshot(
            model=model,
            dataset=dataset,
            recipe=[recipe],
            num_calibration_samples=tokens.shape[0],
            max_seq_length=tokens.shape[1],
            batch_size=args.batch_size,
        )
        return pruned

    run(
        "llm-compressor",
        version("llmcompressor"),
        args,
        prune,
        STARTED,
        save_kwargs={"save_compressed": False},
    )


if __name__ == "__main__":
    main()
