"""Entry point of the `secateur` command."""

from __future__ import annotations

import os
import sys

import typer

from secateur.cli import advise, apply, bench, device, evaluate, export, inspect, plan, prune, quantize, recover, verify
from secateur.cli import run as recipes
from secateur.core.errors import SecateurError
from secateur.model.memory import hold_little

app = typer.Typer(
    help="Prune a language model to fit the device it must run on.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
app.command("prune")(prune.prune)
app.command("recover")(recover.recover)
app.command("plan")(plan.plan)
app.command("apply")(apply.apply)
app.command("eval")(evaluate.evaluate)
app.command("inspect")(inspect.inspect)
app.command("verify")(verify.verify)
app.command("quantize")(quantize.quantize)
app.command("run")(recipes.run)
app.command("export")(export.export)
app.command("bench")(bench.bench)
app.command("device")(device.device)
app.command("advise")(advise.advise)


def main() -> None:
    """Run the command in a process of its own."""
    _spare_the_machine()
    run()


def run() -> None:
    """Run a verb; an error a user can cause is one line on stderr and its exit code."""
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


def _spare_the_machine() -> None:
    """Set, for the whole process, what must be set before a verb imports torch and transformers."""
    # OpenMP threads that wait by spinning starve each other as soon as one core is busy with something else: pruning
    # was measured three times slower then.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    # MKL would keep the work space of every factorisation: 20 to 50 MB.
    os.environ.setdefault("MKL_DISABLE_FAST_MM", "1")
    # transformers imports these wherever they are installed, for losses and for training that no verb needs: 40 MB.
    for name in ("accelerate", "scipy"):
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]
    hold_little()
