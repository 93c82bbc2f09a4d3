"""Entry point of the `secateur` command."""

from __future__ import annotations

import sys

import typer

from secateur.cli.device import adapt, advise, device, serve
from secateur.cli.measure import bench, card, compare, evaluate, inspect, report, verify
from secateur.cli.model import apply, export, plan, prune, quantize, recover
from secateur.cli.model import run as recipes
from secateur.cli.shared.method_lists import Verb
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
app.command("prune", cls=Verb)(prune.prune)
app.command("recover", cls=Verb)(recover.recover)
app.command("plan", cls=Verb)(plan.plan)
app.command("apply", cls=Verb)(apply.apply)
app.command("eval", cls=Verb)(evaluate.evaluate)
app.command("inspect", cls=Verb)(inspect.inspect)
app.command("verify", cls=Verb)(verify.verify)
app.command("quantize", cls=Verb)(quantize.quantize)
app.command("run", cls=Verb)(recipes.run)
app.command("export", cls=Verb)(export.export)
app.command("bench", cls=Verb)(bench.bench)
app.command("device", cls=Verb)(device.device)
app.command("advise", cls=Verb)(advise.advise)
app.command("compare", cls=Verb)(compare.compare)
app.command("report", cls=Verb)(report.report)
app.command("card", cls=Verb)(card.card)
app.command("serve", cls=Verb)(serve.serve)
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
