"""Entry point of the `secateur` command."""

from __future__ import annotations

import os
import sys

import typer

from secateur.cli import apply, bench, evaluate, export, inspect, plan, prune, verify
from secateur.core.errors import SecateurError

app = typer.Typer(
    help="Prune a language model to fit the device it must run on.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
app.command("prune")(prune.prune)
app.command("plan")(plan.plan)
app.command("apply")(apply.apply)
app.command("eval")(evaluate.evaluate)
app.command("inspect")(inspect.inspect)
app.command("verify")(verify.verify)
app.command("export")(export.export)
app.command("bench")(bench.bench)


def main() -> None:
    """Run the command; an error a user can cause is one line on stderr and its exit code."""
    # OpenMP threads that wait by spinning starve each other as soon as one core is busy with something else: pruning
    # was measured three times slower then. Read when torch is first imported, so it must be set before any verb runs.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        app()
    except SecateurError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted: finished blocks are kept, the same command goes on from there", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(141)
