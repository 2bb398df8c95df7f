"""What people see: tables and figures on stdout, errors and reports on stderr; colour on terminals without NO_COLOR."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import shlex
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence

import click

from edgec import __version__
from edgec.graph.errors import UserError

# Modules of the extra `compile`, which a device does without.
_COMPILE_MODULES = ("tvm", "onnx", "ml_dtypes", "platformdirs", "rich")


def echo(text: str, *, err: bool = False) -> None:
    """A line, with its colours only where a terminal shows them and https://no-color.org does not forbid them.

    File names that are no UTF-8 are shown with escapes.
    """
    text = text.encode(errors="backslashreplace").decode()
    click.echo(text, err=err, color=False if os.environ.get("NO_COLOR") else None)


def show_json(value: dict) -> None:
    """One JSON object on stdout."""
    echo(json.dumps(value, indent=2))


def show_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as their widest cell, two spaces apart."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    for number, row in enumerate((header, *rows)):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        echo(click.style(line, bold=True) if number == 0 else line)


def format_bytes(count: int) -> str:
    """1536 -> `1.5 KB`; powers of 1024."""
    size, units = float(count), ["B", "KB", "MB", "GB"]
    while size >= 1024 and len(units) > 1:
        size /= 1024
        units.pop(0)
    return f"{count} B" if units[0] == "B" else f"{size:.1f} {units[0]}"


def format_count(count: int) -> str:
    """1234567 -> `1.23 M`; powers of 1000."""
    size, units = float(count), ["", " k", " M", " G", " T"]
    while size >= 1000 and len(units) > 1:
        size /= 1000
        units.pop(0)
    return f"{count}" if not units[0] else f"{size:.3g}{units[0]}"


# Of a file system without room, or that takes nothing.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)

# What to do about an error that does not say so itself.
_ADVICE = {
    "E0101": "torch.onnx.export writes an ONNX model",
    "E0102": "export the model again, or fetch it again; onnx.checker.check_model may say more",
    "E0103": "export the model with other operators in place of these, or cut it before them",
    "E0106": "look at the path",
    "E0111": "see `edgec compile --help` for --new-head and --input-image",
    "E0501": "`edgec compile` makes one from a model",
    "E0502": "copy or compile the file again",
    "E0505": "choose another place",
    "E0506": "give the file that --checkpoint wrote",
    "E0507": "look at the path",
    "E0603": "`edgec inspect` shows the shapes; --shape and --train-batch of `edgec compile` choose them",
    "E0605": "lower the learning rate, and look in the data for values that are not finite",
    "E0607": "shape the arrays as the model's inputs, with a first axis of samples",
    "E0611": "look in the inputs for values that are not finite or very large",
    "E0612": "`edgec inspect` shows which model an artifact was compiled from",
}


@contextlib.contextmanager
def located(where: object) -> Iterator[None]:
    """Errors inside that know no place get this one."""
    try:
        yield
    except Exception as error:
        failure = as_user_error(error)
        if failure is None or failure.where:
            raise
        where, hint, nodes = str(where), failure.hint, failure.nodes
        raise UserError(failure.code, failure.message, where=where, hint=hint, nodes=nodes) from error


def as_user_error(error: Exception) -> UserError | None:
    """The user's mistake behind an exception, or None if it is a bug of ours."""
    if isinstance(error, UserError):
        return error
    failures = sys.modules.get("edgec.runtime.errors")
    if failures is not None and isinstance(error, failures.RuntimeFailure):
        return UserError(error.code, error.message, where=error.where, hint=error.hint)
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in _COMPILE_MODULES:
        message = f"this command needs the Python package `{error.name}`"
        return UserError("E0402", message, hint="pip install 'edgec[compile]'")
    if isinstance(error, OSError) and error.errno in _FULL:
        # A file of our own making: what the user named is reported where it is written.
        where = error.filename or f"a temporary file, in {tempfile.gettempdir()} or the kernel cache"
        hint = "make room, or let TMPDIR and EDGEC_CACHE name folders that have some"
        return UserError("E0505", f"cannot write: {error.strerror}", where=str(where), hint=hint)
    return None


def show_error(error: UserError) -> None:
    if error.hint is None and error.code in _ADVICE:
        error = UserError(error.code, error.message, where=error.where, hint=_ADVICE[error.code])
    head, _, rest = error.render().partition("\n")
    code, _, message = head.partition(": ")
    echo(f"{click.style(code, fg='red', bold=True)}: {message}", err=True)
    if rest:
        echo(rest, err=True)


def show_bug(error: Exception, words: Sequence[str]) -> None:
    """The text to report. It quotes the command line, versions and the stack, and nothing else of the user's."""
    lines = [
        click.style("internal error", fg="red", bold=True)
        + ": this is a bug of edgec. Please report it with this text:",
        "",
        f"edgec {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}",
        f"command: {shlex.join(['edgec', *words])}",
        "".join(traceback.format_exception(error)).rstrip(),
    ]
    echo("\n".join(lines), err=True)
