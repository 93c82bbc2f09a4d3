"""Narrow the FFNs of a model or drop blocks with optipfair, on given token windows; print one JSON line."""

from __future__ import annotations

import time

STARTED = time.perf_counter()

from importlib.metadata import version  # noqa: E402

import torch  # noqa: E402
from optipfair import prune_model  # noqa: E402
from peer_common import make_parser, run  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402
from transformers import PreTrainedModel  # noqa: E402

# share of the FFN neurons that goes, in percent
METHODS = {"ffn-10": 10.0, "ffn-20": 20.0}


def main() -> None:
    """Run one method: its calibrated (hybrid) scores, which its `MAW` becomes when it is given text."""
    args = make_parser(__doc__ or "", list(METHODS)).parse_args()

    def prune(model: PreTrainedModel, tokens: torch.Tensor) -> PreTrainedModel:
        windows = [{"input_ids": window, "attention_mask": torch.ones_like(window)} for window in tokens]
        pruned: PreTrainedModel = prune_model(
            model=model,
            pruning_type="MLP_GLU",
            neuron_selection_method="MAW",
            pruning_percentage=METHODS[args.method],
            dataloader=DataLoader(windows, batch_size=args.batch_size),  # type: ignore[arg-type]
            show_progress=False,
        )
        return pruned

    run("optipfair", version("optipfair"), args, prune, STARTED)


if __name__ == "__main__":
    main()
