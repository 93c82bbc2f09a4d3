"""Apply a plan: write the pruned model as a folder, reload it and compare."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from secateur.calibrate.calibration import replay_calibration
from secateur.calibrate.self_sampled import probe
from secateur.core.context import Arithmetic, RunContext, Settings
from secateur.core.plan import Plan
from secateur.core.progress import Progress, Silent
from secateur.criteria import CRITERIA
from secateur.export.cards.pruned_card import Facts, model_card
from secateur.model.formats.open_source import hub_name
from secateur.model.handle import ModelHandle, open_model
from secateur.model.tokenizer_pruning import check_tokenizer
from secateur.model.written.checkpoint import writing
from secateur.model.written.folder_writer import FolderWriter
from secateur.model.written.pruned_config import planned_config, surviving_blocks
from secateur.model.written.reload_check import accept, difference, last_states
from secateur.pipeline.prune.prepared_model import PreparedModel, prepared
from secateur.pipeline.prune.pruning_pass import PruningPass
from secateur.pipeline.prune.weights.methods import method_of
from secateur.tensors.precision import arithmetic
from secateur.transform.repair import REPAIRS
from secateur.transform.unit_repair import UNIT_REPAIRS
from secateur_runtime.errors import PlanError


@dataclass(frozen=True, slots=True)
class Pruned:
    """What a run made.

    parameters: stored parameters of the result (a tied head counts once).
    sparsity: share of zeros over the tensors the plan prunes weight by weight.
    reload_difference: largest difference between the reloaded folder's last hidden states and those of the
    run, relative to their largest value.
    """

    out: Path
    plan: Plan
    parameters: int
    sparsity: float
    bytes: int
    resumed_blocks: int
    reload_difference: float


def execute(model: ModelHandle, plan: Plan, out: Path, context: RunContext) -> Pruned:
    """Prune `model` by `plan` into the folder `out`, continuing where the same run was killed.

    Raises PlanError if the plan is not for this model, OutputError if nothing can be written,
    VerificationError if the reloaded folder does not compute what the run computed; nothing is left in place
    then.
    """
    plan.validate(model.graph, model.digest)
    method = method_of(plan.execution)
    if context.settings.dtype == "auto":
        # A budget in bytes was computed for this type.
        context = replace(context, settings=replace(context.settings, dtype=plan.execution.dtype))
    vocab = plan.keep.get(model.graph.vocab.name)
    tokens = _tokens(model, plan, context)
    ready = prepared(model, plan, tokens, context)
    kind: Arithmetic = context.settings.arithmetic or ("float32" if plan.keep or plan.drop else "bfloat16")
    alive = surviving_blocks(model.graph, plan)
    job = {
        "plan": plan.digest(),
        "dtype": str(ready.dtype),
        "arithmetic": kind,
        "secateur": version("secateur"),
    }
    overwrite = context.settings.overwrite
    with arithmetic(kind), writing(out, job, len(alive) + 1, overwrite=overwrite) as checkpoint:
        writer = FolderWriter(checkpoint, model, ready.dtype)
        run = PruningPass(ready, plan, method, writer, tokens, context.settings.memory)
        run.write_blocks("prune", alive, context.progress)
        meant = next(run.hidden.batches()).clone()
        del run.hidden
        writer.describe(planned_config(ready.model, plan), {"plan": plan.digest()}, plan=plan, tokens=vocab)
        made = Pruned(
            out=out,
            plan=plan,
            parameters=checkpoint.tensor_bytes // ready.dtype.itemsize,
            sparsity=run.zeros / max(run.weights, 1),
            bytes=writer.weight_bytes(),
            resumed_blocks=run.resumed,
            reload_difference=_reload(checkpoint.partial, tokens[: len(meant)], meant, plan, ready),
        )
        _write_card(writer, made)
        checkpoint.publish()
    return made


def _tokens(model: ModelHandle, plan: Plan, context: RunContext) -> Tensor:
    """Return the token ids `[windows, tokens]` of a plan's text, or random ones where it needs none.

    Raises PlanError where it needs one and names none.
    """
    text = plan.execution.calibration
    if text is None:
        if needing := _needing(plan):
            raise PlanError(
                f"plan's {needing} needs calibration text, and execution.calibration is empty: give it text,"
                " samples, window and digest, or make a new plan"
            )
        return probe(model, plan.keep.get(model.graph.vocab.name))
    known: Tensor | None = context.results.get(text)
    return replay_calibration(model, text, plan.execution.seed) if known is None else known


def _needing(plan: Plan) -> str:
    """Return what in a plan learns from a text; empty where nothing does."""
    how = plan.execution
    parts = {
        f"rotation {how.rotation}": bool(how.rotation),
        f"criterion {how.criterion}": bool(how.criterion and plan.sparsity and CRITERIA[how.criterion].needs),
        f"weight_repair {how.weight_repair}": bool(plan.sparsity and REPAIRS[how.weight_repair].needs),
        f"unit_repair {how.unit_repair}": bool(plan.keep and UNIT_REPAIRS[how.unit_repair].needs),
        f"gap_repair {how.gap_repair}": bool(plan.drop and how.closes_gaps),
    }
    return next((part for part, needs in parts.items() if needs), "")


def _reload(folder: Path, tokens: Tensor, meant: Tensor, plan: Plan, model: PreparedModel) -> float:
    """Run `tokens` through the written folder, block by block; return the relative difference from `meant`.

    tokens: ids `[windows, tokens]`; meant: last hidden states `[windows, tokens, hidden_size]` of the run.
    Where channels or tokens were cut, so was the head, and the logits of each window's last position are
    compared too.
    """
    written = open_model(str(folder))
    stream = written.stream()
    vocab = plan.keep.get(model.graph.vocab.name)
    alive = torch.tensor(vocab or range(written.graph.vocab_size))
    if vocab:
        check_tokenizer(written.source.tokenizer(), model.model.source.tokenizer(), vocab)
        tokens = torch.searchsorted(alive, tokens)
    states = last_states(stream, tokens)
    found = difference(states, meant[..., model.kept])
    if model.cuts_channels or vocab:
        given, wanted = (
            torch.cat(list(one.logits(ends[:, -1])))
            for one, ends in ((stream, states), (model.stream(), meant))
        )
        found = max(found, difference(given, wanted[:, alive]))
    accept(found)
    return found


def _write_card(writer: FolderWriter, made: Pruned) -> None:
    model = writer.model
    facts = Facts(
        name=Path(model.source.ref).name,
        base=hub_name(model.source.ref),
        parameters=made.parameters,
        bytes=made.bytes,
        zeros=made.sparsity,
        difference=made.reload_difference,
        stock=writer.stock,
    )
    writer.write_card(model_card(made.plan, model.graph, facts))


def apply(
    plan: Plan,
    src: str,
    out: str | Path,
    *,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> Pruned:
    """Apply `plan` to the model `src` and write the folder `out`, which appears once reloaded and compared.

    Raises PlanError if the plan is for another model, OutputError if `out` cannot be written,
    VerificationError if the reloaded folder does not compute what was meant.
    """
    context = RunContext(progress=progress or Silent(), settings=settings or Settings())
    return execute(open_model(src), plan, Path(out), context)
