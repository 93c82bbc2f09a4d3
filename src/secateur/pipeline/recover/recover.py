"""Recover what pruning lost: train a pruned model towards the dense model it was made from."""

from __future__ import annotations

from pathlib import Path

from secateur.calibrate.calibration import Calibration
from secateur.core.context import RunContext, Settings
from secateur.core.progress import Progress, Silent
from secateur.model.handle import open_model
from secateur.pipeline.recover.iterative_pruning import Interleaved, interleave
from secateur.pipeline.recover.local_reconstruction import Local
from secateur.pipeline.recover.methods import RecoverOptions
from secateur.pipeline.recover.training_run import Recovered, prepare_recovery, run_recovery


def recover(
    src: str,
    out: str | Path,
    how: RecoverOptions | Interleaved | None = None,
    *,
    teacher: str,
    calibration: Calibration | None = None,
    seed: int = 0,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> Recovered:
    """Train the pruned model `src` towards its dense model `teacher` and write the folder `out`.

    how: a `Local` (the default), a `Distill`, or an `Interleaved`, for which `src` is the dense model.
    Trained weights keep their zeros. Held-out windows of the calibration text decide whether the result is
    better; where it is not, the weights stay as they were.
    Raises SecateurError for models, texts or options that cannot work, VerificationError if the reloaded
    folder does not compute what was meant; nothing is left in place then.
    """
    wanted = how or Local()
    context = RunContext(seed=seed, progress=progress or Silent(), settings=settings or Settings())
    text = calibration or Calibration(samples=wanted.samples)
    if isinstance(wanted, Interleaved):
        return interleave(src, teacher, wanted, text, Path(out), context)
    job = prepare_recovery(open_model(src), open_model(teacher), wanted, text, context)
    return run_recovery(job, Path(out))
