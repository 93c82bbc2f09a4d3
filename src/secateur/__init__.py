"""Secateur prunes language models for the device they must run on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from secateur.model.announce import announce

if TYPE_CHECKING:
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
    from secateur.pipeline.conduct import run

__all__ = [
    "Audit",
    "Calibration",
    "Depth",
    "Distill",
    "Integers",
    "Interleaved",
    "Local",
    "Plan",
    "Pruned",
    "Quality",
    "Quantized",
    "Recovered",
    "Settings",
    "Sparsity",
    "Tasked",
    "Verified",
    "Width",
    "advise",
    "apply",
    "audit_bias",
    "evaluate",
    "evaluate_tasks",
    "plan",
    "prune",
    "quantize",
    "recover",
    "run",
    "verify",
]


announce()


def __getattr__(name: str) -> Any:
    """Import the pipeline when a public name is first used, so that `import secateur` is instant."""
    if name not in __all__:
        raise AttributeError(f"module 'secateur' has no attribute {name!r}")
    from secateur import pipeline

    if name == "run":
        from secateur.pipeline.conduct import run

        return run
    return getattr(pipeline, name)
