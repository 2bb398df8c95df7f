"""The entry point: a table of commands, loaded when called, and the boundary where errors become exit statuses.

0: done. 1: the user's input is at fault, with `error[E....]` on stderr. 2: wrong usage. 70: our bug, with a report.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
from collections.abc import Sequence

import click

from edgec import __version__
from edgec.tools.cli import console

# Command: one line for the list. `edgec NAME` is the object `command` of `edgec.tools.cli.NAME`, loaded on demand.
COMMANDS = {
    "compile": "Compile a model, with its training step if asked, into one .edge file.",
    "check": "Say what cannot be compiled, and the bytes it will need, without compiling.",
    "search": "Find the update scheme that gains most within a memory budget.",
    "tune": "Measure how the kernels of a model are best made on this machine.",
    "run": "Run one inference.",
    "train": "Train an artifact on data: the fine-tuning loop.",
    "verify": "Compare an artifact with the model it came from.",
    "bench": "Time a run, beside other engines if asked.",
    "profile": "Show the time of every kernel call.",
    "export": "Write trained weights back into the ONNX model.",
    "inspect": "Show what is in an artifact.",
    "memory": "Show the memory plan of artifacts.",
    "targets": "List the machines edgec compiles for, and what is installed for each.",
    "doctor": "Check this installation.",
}
# Objects made between two collections. Nearly all that a command makes lives until its end, and to look through it for
# cycles every 700 objects is a fifth of a compilation's time.
_COLLECT_AFTER = 100_000
_BUG, _INTERRUPTED, _TERMINATED = 70, 130, 143


class LazyGroup(click.Group):
    """Loads the module of a command when it is called, so that `--help` and light commands start at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        return importlib.import_module(f"edgec.tools.cli.{cmd_name}").command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edgec")
def _edgec() -> None:
    """Compile a model, and its training step, into one file that a tiny runtime runs.

    Example: edgec compile model.onnx --target rpi4 -o model.edge
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit. arguments: without the program's name; default: those of this process."""
    if arguments is None:
        # So that temporary files go, and compile processes end, with us.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))
        gc.set_threshold(_COLLECT_AFTER)
    words = list(sys.argv[1:] if arguments is None else arguments)
    sys.exit(_run(words))


def _run(words: list[str]) -> int:
    try:
        # A command may return its exit status.
        status = _edgec.main(args=words, prog_name="edgec", standalone_mode=False)
        return status if isinstance(status, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        console.echo("interrupted", err=True)
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever reads us, `head` for one, has seen enough; the interpreter's own flush must not fail over it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        failure = console.as_user_error(error)
        if failure is not None:
            console.show_error(failure)
            return 1
        console.show_bug(error, words)
        return _BUG
