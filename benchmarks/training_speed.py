"""How fast distillation trains beside the shortest loop that does the same.

Tokens a processor second, in turns.

    python benchmarks/training_speed.py [--steps 2] [--rounds 2] [--model smollm2-135m]

Both train every weight of the blocks with AdamW, in bfloat16 operations where the CPU has them, on the same
windows and the same 64 kept tokens of a teacher; the short loop has no accumulation, schedule, clipping,
masks or state. Nothing is written.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from accelerate import Accelerator

from secateur.model.families import EMBED, HEAD
from secateur.model.full_model import load_whole
from secateur.model.handle import open_model
from secateur.tensors.precision import has_bfloat16
from secateur.train.learner import Loss, named_weights
from secateur.train.losses import Targets
from secateur.train.trainer import Regime, Trainer

WINDOWS = 2
LENGTH = 512
KEPT = 64


def minimal(model: torch.nn.Module, tokens: torch.Tensor, targets: Targets) -> Callable[[], None]:
    """Return one step of the shortest loop."""
    model.get_input_embeddings().requires_grad_(False)
    optimizer = torch.optim.AdamW(
        [parameter for parameter in model.parameters() if parameter.requires_grad], lr=1e-6, fused=True
    )

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16()):
            logits = model(input_ids=tokens, use_cache=False).logits
        mine = logits.float().log_softmax(-1).gather(-1, targets.tokens.long())
        teacher = targets.logs.float()
        (teacher.exp() * (teacher - mine)).sum(-1).mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def main() -> None:
    """Measure both in turns and print their speeds and the ratio."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--model", default="smollm2-135m")
    given = parser.parse_args()
    opened = open_model(given.model)
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(opened.graph.vocab_size, (WINDOWS, LENGTH), generator=draw)
    logs = torch.rand(WINDOWS, LENGTH, KEPT, generator=draw).log_softmax(-1) - 0.1
    targets = Targets(torch.randint(opened.graph.vocab_size, logs.shape, generator=draw).int(), logs.half())
    short = load_whole(opened).train()
    learner = named_weights(load_whole(opened), {}, opened.graph.tensors.keys() - {EMBED, HEAD})
    with tempfile.TemporaryDirectory() as folder:
        regime = Regime(steps=1000, batch=WINDOWS, micro=WINDOWS, rate=1e-6, bfloat16=has_bfloat16())
        trainer = Trainer(Accelerator(), learner, Loss(), regime, Path(folder), 0)
        ways = {
            "secateur": lambda: trainer._step(tokens, targets, torch.arange(WINDOWS), 0),
            "minimal": minimal(short, tokens, targets),
        }
        found: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(given.rounds + 1):
            for name, step in ways.items():
                began = time.process_time()
                for _ in range(given.steps if turn else 1):
                    step()
                if turn:
                    found[name].append(given.steps * tokens.numel() / (time.process_time() - began))
                    print(f"turn {turn}, {name}: {found[name][-1]:.0f}", flush=True)
    for name, speeds in found.items():
        print(
            f"{name}: {statistics.median(speeds):.0f} tokens a processor second ({min(speeds):.0f} to"
            f" {max(speeds):.0f})"
        )
    print(f"ratio {statistics.median(found['secateur']) / statistics.median(found['minimal']):.2f}")


if __name__ == "__main__":
    main()
