"""`edgec doctor`."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from dataclasses import dataclass

import click

from edgec import __version__
from edgec.backends.cache import cache_folder
from edgec.backends.targets import host_arch, host_features
from edgec.backends.toolchain import TVM_REQUIREMENT, all_statuses
from edgec.runtime.library import library
from edgec.tools.cli.console import echo, show_json, show_table

# Distribution: what it is for, and whether compiling needs it.
_PACKAGES = {
    "numpy": ("everything", True),
    "apache-tvm": ("kernels", True),
    "onnx": ("ONNX models", True),
    "ml_dtypes": ("16-bit floats", True),
    "platformdirs": ("the kernel cache", True),
    "torch": ("PyTorch models", False),
    "onnxruntime": ("edgec verify, edgec bench", False),
}


@dataclass(frozen=True)
class Finding:
    """One line of the report. `ok` is None where something optional is absent."""

    what: str
    ok: bool | None
    detail: str
    fix: str = ""


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def command(as_json: bool) -> int:
    """Check this installation. Exits 1 if something is missing without which nothing can be compiled for this machine.

    Example: edgec doctor
    """
    findings = [_system(), _runtime(), *_packages(), *_tools(), _cache()]
    healthy = all(finding.ok is not False for finding in findings)
    if as_json:
        show_json({"healthy": healthy, "findings": [vars(finding) for finding in findings]})
    else:
        words = {True: "ok", False: "MISSING", None: "absent"}
        show_table(("what", "", "detail"), [(f.what, words[f.ok], f.detail) for f in findings])
        for fix in dict.fromkeys(f.fix for f in findings if f.fix):
            echo(f"to install: {fix}")
    return 0 if healthy else 1


def _system() -> Finding:
    features = " ".join(feature.name.lower() for feature in host_features()) or "baseline"
    detail = f"Python {platform.python_version()}, {host_arch().name.lower()}, {os.cpu_count()} cores, {features}"
    return Finding(f"edgec {__version__}", True, detail)


def _runtime() -> Finding:
    try:
        library()
    except Exception as error:
        return Finding("runtime library", False, str(error).partition("\n")[0], "pip install --editable . (make lib)")
    return Finding("runtime library", True, "loaded")


def _packages() -> list[Finding]:
    findings = []
    for name, (purpose, needed) in _PACKAGES.items():
        try:
            findings.append(Finding(name, True, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            fix = f"pip install {TVM_REQUIREMENT if name == 'apache-tvm' else name}"
            findings.append(Finding(name, False if needed else None, f"for {purpose}", fix))
    return findings


def _tools() -> list[Finding]:
    """The toolchain of every target; only this machine's own must be there."""
    findings = []
    for status in all_statuses():
        tools = [tool for tool in status.missing if tool != "apache-tvm"]
        absent = False if status.target.arch is host_arch() else None
        detail = f"missing {', '.join(tools)}" if tools else f"runs here on {status.runs_on}"
        fix = status.install.partition(" && pip")[0] if tools else ""
        findings.append(Finding(f"target {status.target.name}", absent if tools else True, detail, fix))
    return findings


def _cache() -> Finding:
    folder = cache_folder()
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    writable = os.access(nearest, os.W_OK)
    return Finding("kernel cache", True if writable else None, f"{folder}{'' if writable else ' (cannot be written)'}")
