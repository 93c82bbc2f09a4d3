"""Entry point of the `secateur` command."""

from __future__ import annotations

import sys

import typer

from secateur.cli.device import adapt, advise, device, serve
from secateur.cli.measure import bench, card, compare, evaluate, inspect, report, verify
from secateur.cli.model import apply, export, plan, prune, quantize, recover
from secateur.cli.model import run as recipes
from secateur.core.process_memory import spare_the_machine
from secateur_runtime.errors import ExitCode, SecateurError

app = typer.Typer(
    help="Prune a language model to fit the device it must run on.",
    epilog=(
        "Exit codes: 0 done and checked; 2 bad input; 3 checked and failed, or nothing fits; 4 could not be"
        " checked; 130 interrupted."
    ),
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
app.command("compare")(compare.compare)
app.command("report")(report.report)
app.command("card")(card.card)
app.command("serve")(serve.serve)
app.add_typer(adapt.app, name="adapt")


def main() -> None:
    """Run the command in a process of its own."""
    spare_the_machine()
    run()


def run() -> None:
    """Run a verb; an error a user can cause is one line on stderr and its exit code."""
    try:
        app()
    except SecateurError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted: finished blocks are kept, the same command continues from there", file=sys.stderr)
        sys.exit(ExitCode.INTERRUPTED)
    except BrokenPipeError:
        sys.exit(ExitCode.CLOSED_PIPE)
