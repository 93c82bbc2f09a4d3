"""Secateur prunes language models for the device they must run on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from secateur.model.transformers_hook import announce

if TYPE_CHECKING:
    from secateur.adapt.api import rank, simulate, train_policy
    from secateur.adapt.ranking.rank import Rank
    from secateur.calibrate.calibration import Calibration
    from secateur.core.context import Settings
    from secateur.core.plan import Plan
    from secateur.measure.perplexity import Quality
    from secateur.pipeline.advise.advise import advise
    from secateur.pipeline.compare.compare import Running, compare
    from secateur.pipeline.compare.model_card import card
    from secateur.pipeline.compare.protocol import Protocol
    from secateur.pipeline.evaluate.bias_audit import Audit, audit_bias
    from secateur.pipeline.evaluate.evaluate import evaluate
    from secateur.pipeline.evaluate.tasks import TaskResult, evaluate_tasks
    from secateur.pipeline.evaluate.verify import Verified, verify
    from secateur.pipeline.prune.apply import Pruned, apply
    from secateur.pipeline.prune.depth.decide import Depth
    from secateur.pipeline.prune.plan import plan
    from secateur.pipeline.prune.prune import prune
    from secateur.pipeline.prune.vocabulary import Vocab
    from secateur.pipeline.prune.weights.decide import Sparsity
    from secateur.pipeline.prune.width.decide import Width
    from secateur.pipeline.quantize.quantize import Quantization, Quantized, quantize
    from secateur.pipeline.recipe.runner import run
    from secateur.pipeline.recover.distill import Distill
    from secateur.pipeline.recover.iterative_pruning import Interleaved
    from secateur.pipeline.recover.local_reconstruction import Local
    from secateur.pipeline.recover.recover import recover
    from secateur.pipeline.recover.training_run import Recovered
    from secateur.present.report import report

__all__ = [
    "Audit",
    "Calibration",
    "Depth",
    "Distill",
    "Interleaved",
    "Local",
    "Plan",
    "Protocol",
    "Pruned",
    "Quality",
    "Quantization",
    "Quantized",
    "Rank",
    "Recovered",
    "Running",
    "Settings",
    "Sparsity",
    "TaskResult",
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

_HOME = {
    "Audit": "secateur.pipeline.evaluate.bias_audit",
    "Calibration": "secateur.calibrate.calibration",
    "Depth": "secateur.pipeline.prune.depth.decide",
    "Distill": "secateur.pipeline.recover.distill",
    "Quantization": "secateur.pipeline.quantize.quantize",
    "Interleaved": "secateur.pipeline.recover.iterative_pruning",
    "Local": "secateur.pipeline.recover.local_reconstruction",
    "Plan": "secateur.core.plan",
    "Protocol": "secateur.pipeline.compare.protocol",
    "Pruned": "secateur.pipeline.prune.apply",
    "Quality": "secateur.measure.perplexity",
    "Quantized": "secateur.pipeline.quantize.quantize",
    "Rank": "secateur.adapt.ranking.rank",
    "Recovered": "secateur.pipeline.recover.training_run",
    "Running": "secateur.pipeline.compare.compare",
    "Settings": "secateur.core.context",
    "Sparsity": "secateur.pipeline.prune.weights.decide",
    "TaskResult": "secateur.pipeline.evaluate.tasks",
    "Verified": "secateur.pipeline.evaluate.verify",
    "Vocab": "secateur.pipeline.prune.vocabulary",
    "Width": "secateur.pipeline.prune.width.decide",
    "advise": "secateur.pipeline.advise.advise",
    "apply": "secateur.pipeline.prune.apply",
    "audit_bias": "secateur.pipeline.evaluate.bias_audit",
    "card": "secateur.pipeline.compare.model_card",
    "compare": "secateur.pipeline.compare.compare",
    "evaluate": "secateur.pipeline.evaluate.evaluate",
    "evaluate_tasks": "secateur.pipeline.evaluate.tasks",
    "plan": "secateur.pipeline.prune.plan",
    "prune": "secateur.pipeline.prune.prune",
    "quantize": "secateur.pipeline.quantize.quantize",
    "rank": "secateur.adapt.api",
    "recover": "secateur.pipeline.recover.recover",
    "report": "secateur.present.report",
    "run": "secateur.pipeline.recipe.runner",
    "simulate": "secateur.adapt.api",
    "train_policy": "secateur.adapt.api",
    "verify": "secateur.pipeline.evaluate.verify",
}
"""The module that holds each public name."""

announce()


def __getattr__(name: str) -> Any:
    """Import a module when a public name of it is first used, so that `import secateur` is instant."""
    if name not in _HOME:
        raise AttributeError(f"module 'secateur' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
