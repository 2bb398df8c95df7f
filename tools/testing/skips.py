"""pytest plugin: a skipped test is a decision that stands here.

With CI=true a skip is a failure, because whatever a test needs can be installed, unless its reason begins with
`hardware:`, for what no package brings. Suites for a GPU (`test_gpu_*.py`) are not collected where there is none.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

HARDWARE = "hardware:"


def _strict() -> bool:
    return os.environ.get("CI") == "true"


def has_gpu() -> bool:
    return Path("/dev/nvidiactl").exists()


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    if collection_path.name.startswith("test_gpu_") and not has_gpu():
        return True
    return None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    return _judge((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    return _judge((yield))


def _judge(report):
    if _strict() and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reason = reason.removeprefix("Skipped: ")
        if not reason.startswith(HARDWARE):
            report.outcome = "failed"
            report.longrepr = f"skipped under CI: {reason}"
    return report
