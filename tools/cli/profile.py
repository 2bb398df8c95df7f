"""`edgec profile`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click

from edgec.runtime import load
from edgec.runtime.layout import read_manifest
from edgec.tools.cli.arrays import whole_file
from edgec.tools.cli.console import echo, format_count, located, show_json, show_table
from edgec.tools.cli.options import ARTIFACT, DEVICE, JSON, LIBRARIES, TARGET, THREADS
from edgec.tools.profile import (
    CallTime,
    KernelTime,
    by_kernel,
    default_threads,
    from_device,
    measure_peak,
    profile_here,
    random_feeds,
    summarise,
)
from edgec.tools.trace import trace as as_trace


@click.command("profile")
@ARTIFACT
@click.option("--program", default="infer", show_default=True, help="Which program to run, on random inputs.")
@click.option("--runs", default=20, show_default=True, type=click.IntRange(min=1), help="After one unmeasured.")
@click.option("--calls", "each_call", is_flag=True, help="A row for every call, in the order of the plan.")
@click.option("--trace", type=click.Path(dir_okay=False, path_type=Path), help="Write all runs for Perfetto (.json).")
@DEVICE
@TARGET
@LIBRARIES
@THREADS
@JSON
def command(
    artifact: Path,
    program: str,
    runs: int,
    each_call: bool,
    trace: Path | None,
    device: str,
    target: str | None,
    libraries: tuple[str, ...],
    threads: int | None,
    as_json: bool,
) -> None:
    """Show which kernels of ARTIFACT take the time, and how near they come to this machine's peak.

    The peak is that of numpy's matrix product with as many threads, measured right after; of a GPU there is none. Times
    under emulation are those of the emulator.

    Example: edgec profile model.edge --program train --threads 1 --trace step.json
    """
    peak = None
    if device == "local":
        with located(artifact), load(artifact, threads, target=target, libraries=libraries) as model:
            measured, on_gpu = profile_here(model, program, runs), _is_of_gpu(artifact, model.target)
        rows, where = summarise(measured), "this machine's GPU" if on_gpu else "this machine"
        if not on_gpu:
            peak = measure_peak(threads or default_threads())
        if trace is not None:
            with whole_file(trace) as file:
                file.write(json.dumps(as_trace(artifact.name, threads or default_threads(), measured)).encode())
    elif trace is not None:
        raise click.UsageError("--trace is for --device local: devices send back no points in time")
    else:
        rows, where = _profile_elsewhere(device, artifact, program, runs, target, threads)
    kernels = by_kernel(rows)
    if as_json:
        show_json(_record(program, runs, where, peak, kernels, rows))
        return
    if each_call:
        _show_calls(rows)
    else:
        _show_kernels(kernels, peak)
    total = sum(row.nanoseconds for row in rows)
    echo(f"{total / 1e6:.3f} ms in {len(rows)} calls of {len(kernels)} kernels, on {where}")
    if peak is not None:
        macs = sum(row.macs for row in rows)
        echo(f"peak {peak:.1f} GFLOP/s; the program reaches {2 * macs / max(total, 1):.1f}")


def _is_of_gpu(artifact: Path, target: str) -> bool:
    kinds = {code["target"]: code["kind"] for code in read_manifest(artifact).get("code", ())}
    return kinds.get(target) in ("cubin", "opencl")


def _profile_elsewhere(
    device: str, artifact: Path, program: str, runs: int, target: str | None, threads: int | None
) -> tuple[list[CallTime], str]:
    from edgec.tools.device_run import inputs_of, run_on_device  # noqa: PLC0415  lacking on a device

    with located(f"device {device}"):
        feeds = random_feeds(*inputs_of(artifact, program))
        done = run_on_device(device, artifact, program, feeds, target=target, steps=runs, threads=threads or 1)
    return from_device(done.profile), done.where


def _show_kernels(kernels: list[KernelTime], peak: float | None) -> None:
    total = sum(row.nanoseconds for row in kernels)
    show_table(
        ("kernel", "calls", "microseconds", "share", "MACs", "GFLOP/s", "of peak", "first computes"),
        [
            (
                row.kernel,
                str(row.calls),
                f"{row.nanoseconds / 1e3:.1f}",
                f"{row.nanoseconds / max(total, 1):.1%}",
                format_count(row.macs) if row.macs else "",
                f"{row.gflops:.1f}" if row.macs else "",
                f"{row.gflops / peak:.0%}" if row.macs and peak else "",
                row.labels[0],
            )
            for row in kernels
        ],
    )


def _show_calls(rows: list[CallTime]) -> None:
    show_table(
        ("computes", "kernel", "microseconds", "MACs"),
        [
            (row.label, row.kernel, f"{row.nanoseconds / 1e3:.1f}", format_count(row.macs) if row.macs else "")
            for row in rows
        ],
    )


def _record(
    program: str, runs: int, where: str, peak: float | None, kernels: list[KernelTime], rows: list[CallTime]
) -> dict:
    return {
        "program": program,
        "runs": runs,
        "device": where,
        "peak_gflops": peak,
        "kernels": [{**dataclasses.asdict(row), "gflops": row.gflops} for row in kernels],
        "calls": [dataclasses.asdict(row) for row in rows],
    }
