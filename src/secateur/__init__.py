"""Secateur prunes language models for the device they must run on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from secateur.model.announce import announce

if TYPE_CHECKING:
    from secateur.adapt.public import rank, simulate, train_policy
    from secateur.adapt.ranking import Rank
    from secateur.pipeline import (
        Audit,
        Calibration,
        Depth,
        Distill,
        Integers,
        Interleaved,
        Local,
        Plan,
        Pruned,
        Quality,
        Quantized,
        Recovered,
        Settings,
        Sparsity,
        Tasked,
        Verified,
        Vocab,
        Width,
        advise,
        apply,
        audit_bias,
        evaluate,
        evaluate_tasks,
        plan,
        prune,
        quantize,
        recover,
        verify,
    )
    from secateur.pipeline.carding import card
    from secateur.pipeline.comparing import Running, compare
    from secateur.pipeline.comparing.protocol import Protocol
    from secateur.pipeline.conduct import run
    from secateur.pipeline.reporting import report

__all__ = [
    "Audit",
    "Calibration",
    "Depth",
    "Distill",
    "Integers",
    "Interleaved",
    "Local",
    "Plan",
    "Protocol",
    "Pruned",
    "Quality",
    "Quantized",
    "Rank",
    "Recovered",
    "Running",
    "Settings",
    "Sparsity",
    "Tasked",
    "Verified",
    "Vocab",
    "Width",
    "advise",
    "apply",
    "audit_bias",
    "card",
    "compare",
    "evaluate",
    "evaluate_tasks",
    "plan",
    "prune",
    "quantize",
    "rank",
    "recover",
    "report",
    "run",
    "simulate",
    "train_policy",
    "verify",
]


_ELSEWHERE = {
    **dict.fromkeys(("rank", "simulate", "train_policy"), "secateur.adapt.public"),
    "Rank": "secateur.adapt.ranking",
    "Protocol": "secateur.pipeline.comparing.protocol",
    "Running": "secateur.pipeline.comparing",
    "card": "secateur.pipeline.carding",
    "compare": "secateur.pipeline.comparing",
    "report": "secateur.pipeline.reporting",
    "run": "secateur.pipeline.conduct",
}
"""Where names are that `secateur.pipeline` does not hold."""

announce()


def __getattr__(name: str) -> Any:
    """Import the pipeline when a public name is first used, so that `import secateur` is instant."""
    if name not in __all__:
        raise AttributeError(f"module 'secateur' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_ELSEWHERE.get(name, "secateur.pipeline")), name)
