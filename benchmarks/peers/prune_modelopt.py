"""Prune a model with NVIDIA ModelOpt on given token windows and print one JSON line."""

from __future__ import annotations

import time

STARTED = time.perf_counter()

from importlib.metadata import version  # noqa: E402

import modelopt.torch.sparsity as mts  # noqa: E402
import torch  # noqa: E402
from peer_common import make_parser, run  # noqa: E402
from transformers import PreTrainedModel  # noqa: E402


def main() -> None:
    """Run SparseGPT 2:4, the one calibrated weight-sparsity method that ModelOpt has."""
    args = make_parser(__doc__ or "", ["sparsegpt-2:4"]).parse_args()
    extra = {"hessian_damp": args.damp} if args.damp is not None else {}

    def prune(model: PreTrainedModel, tokens: torch.Tensor) -> PreTrainedModel:
        config = {
            "data_loader": list(tokens.split(args.batch_size)),
            "collect_func": lambda batch: batch,
            **extra,
        }
        with torch.inference_mode():
            model = mts.sparsify(model, mode="sparsegpt", config=config)
        exported: PreTrainedModel = mts.export(model)  # folds the masks into plain Linear weights
        exported.tie_weights()  # the export clones every weight, the tied head included
        return exported

    run("modelopt", version("nvidia-modelopt"), args, prune, STARTED)


if __name__ == "__main__":
    main()
