"""`edgec compile`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgec.graph.errors import UserError
from edgec.tools.cli.console import echo, format_bytes, format_count, show_json, show_table
from edgec.tools.cli.options import JSON, MODEL, TUNING, compilation, make_request
from edgec.tools.cli.progress import search_display

if TYPE_CHECKING:
    from edgec.backends.base import Target
    from edgec.compiler.compile import CompileResult, Observer
    from edgec.compiler.report import Report
    from edgec.tools.static_library import StaticLibrary

_PHASES = ("specialise", "quantize", "differentiate", "sparsify", "optimise", "plan", "lower", "pack")


@click.command("compile")
@MODEL
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="By default MODEL with .edge.")
@compilation
@TUNING
@click.option(
    "--emit",
    nargs=2,
    type=(click.Choice(["static"]), click.Path(file_okay=False, path_type=Path)),
    metavar="static DIR",
    help="Write C sources that an application links. A micro-controller's go to OUTPUT with .static by default.",
)
@click.option(
    "--originals",
    type=click.Choice(["keep", "drop"]),
    default="keep",
    show_default=True,
    help="Drop what only reads the model's weights back, as `export` to .safetensors does: a few per cent of the file.",
)
@click.option("--data", type=click.Path(path_type=Path), help="What --update auto measures with (.npz).")
@click.option("--dump-ir", type=click.Path(file_okay=False, path_type=Path), help="Write the program after every pass.")
@click.option("--stop-after", type=click.Choice(_PHASES), help="Stop, with nothing written but dumps.")
@click.option("--keep-kernels", type=click.Path(file_okay=False, path_type=Path), help="Keep the code images here.")
@JSON
def command(
    model: Path,
    output: Path | None,
    emit: tuple[str, Path] | None,
    data: Path | None,
    dump_ir: Path | None,
    stop_after: str | None,
    keep_kernels: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Compile MODEL (.onnx or .pt2), with its training step if asked, into one .edge file.

    Example: edgec compile model.onnx --target rpi4 --shape x=1,3,224,224 --train --train-batch 8 -o model.edge
    """
    request = make_request(model, **options)
    out, sources = _places(model, output, emit, request.targets)
    from edgec.tools.api import build, weight_warnings, with_found_scheme  # noqa: PLC0415  after the options were checked

    if request.train is not None and request.train.update == "auto":
        with search_display() as say:
            request = with_found_scheme(request, data, say)
    with _observer(dump_ir, stop_after) as observer:
        result = build(request, out, observer)
    if result is None:
        return
    for warning in weight_warnings(result):
        echo(f"warning: {warning}", err=True)
    if keep_kernels is not None:
        _keep_kernels(result, keep_kernels)
    library = None if sources is None else _write_static(result, sources, model.stem)
    if as_json:
        show_json(result.report.to_json() | ({"static": library.to_json()} if library else {}))
        return
    _show(result.report, out)
    if library is not None:
        _show_static(library)


def _places(
    model: Path, output: Path | None, emit: tuple[str, Path] | None, targets: Sequence[Target]
) -> tuple[Path, Path | None]:
    """Where the artifact goes, and the folder of C sources if there shall be one; that folder then holds both."""
    if emit is None:
        out = output or model.with_suffix(".edge")
        linked = len(targets) == 1 and targets[0].c_source
        return out, out.with_suffix(".static") if linked else None
    if len(targets) != 1:
        raise click.UsageError("--emit static takes one --target")
    if targets[0].arch.is_device:
        raise click.UsageError("--emit static is for processors: a GPU's driver takes an artifact from a file")
    folder = emit[1]
    try:
        # Said before minutes of work rather than after.
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError("E0505", f"cannot make the folder `{folder}`: {error.strerror}") from error
    return output or folder / f"{model.stem}.edge", folder


def _write_static(result: CompileResult, folder: Path, name: str) -> StaticLibrary:
    from edgec.tools.static_library import write_static  # noqa: PLC0415

    return write_static(result, folder, name)


@contextlib.contextmanager
def _observer(dump_ir: Path | None, stop_after: str | None) -> Iterator[Observer]:
    """Dumps, and a progress bar on stderr if that is a terminal."""
    from rich.console import Console  # noqa: PLC0415  of the extra `compile`
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    from edgec.compiler.compile import Observer  # noqa: PLC0415
    from edgec.compiler.passbase import Phase, Trace  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
    with bar:
        task = bar.add_task("import", total=None)
        trace = Trace(
            dump=dump_ir,
            stop_after=Phase(stop_after) if stop_after else None,
            observe=lambda name: bar.update(task, description=name),
        )
        yield Observer(
            trace,
            lambda target, done, total: bar.update(
                task, description=f"kernels for {target}", completed=done, total=total
            ),
        )


def _keep_kernels(result: CompileResult, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for target, image in zip(result.report.targets, result.images, strict=True):
        (folder / f"{target.replace(':', '-')}.{image.kind}").write_bytes(image.data)


def _show_static(library: StaticLibrary) -> None:
    echo(
        f"{library.folder}: C sources; constants {format_bytes(library.artifact_bytes)}, "
        f"memory {format_bytes(library.memory_bytes)}, stack up to {format_bytes(library.stack_bytes)}"
    )


def _show(report: Report, out: Path) -> None:
    echo(f"{out}: {', '.join(report.targets)}; {format_bytes(report.artifact_bytes)}, in {report.seconds:.1f} s")
    echo(f"parameters {format_bytes(report.param_bytes)}")
    show_table(
        ("program", "ops", "MACs", "arena", "state", "saved activations"),
        [
            (
                name,
                str(p.ops),
                format_count(p.macs),
                format_bytes(p.arena_bytes),
                format_bytes(p.state_bytes),
                format_bytes(p.saved_activation_bytes),
            )
            for name, p in report.programs.items()
        ],
    )
