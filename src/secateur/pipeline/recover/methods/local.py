"""Train one sub-block at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from secateur.pipeline.recover.local_reconstruction import Local, LocalPass
from secateur.pipeline.recover.methods import own_recovery

if TYPE_CHECKING:
    from secateur.pipeline.recover.training_run import RecoveryJob
    from secateur.pipeline.recover.weight_writer import Rewrite


@own_recovery("local", kind=Local, rate=Local().rate)
def local(job: RecoveryJob, rewrite: Rewrite) -> LocalPass:
    """One attention or FFN at a time, with one block in memory."""
    assert isinstance(job.how, Local)
    return LocalPass(job.student, job.teacher, job.plan, job.how, rewrite)
