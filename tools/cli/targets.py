"""`edgec targets`."""

from __future__ import annotations

import click

from edgec.backends.base import TargetStatus
from edgec.backends.toolchain import all_statuses
from edgec.tools.cli.console import echo, show_json, show_table


@click.command("targets")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def command(as_json: bool) -> None:
    """List the machines edgec compiles for, what is installed for each, and the command that installs the rest.

    Example: edgec targets --json
    """
    statuses = all_statuses()
    if as_json:
        show_json({"targets": [_record(status) for status in statuses]})
        return
    show_table(
        ("target", "cpu", "ready", "runs here on", "what"),
        [
            (s.target.name, s.target.cpu, "no" if s.missing else "yes", s.runs_on, s.target.description)
            for s in statuses
        ],
    )
    remarks = [f"missing {', '.join(s.missing)}: {s.install}" for s in statuses if s.missing]
    remarks += [note for s in statuses for note in s.notes]
    for remark in dict.fromkeys(remarks):
        echo(remark)


def _record(status: TargetStatus) -> dict:
    target = status.target
    return {
        "name": target.name,
        "description": target.description,
        "arch": target.arch.name.lower(),
        "cpu": target.cpu,
        "features": [feature.name.lower() for feature in target.features],
        "ready": not status.missing,
        "missing": list(status.missing),
        "install": status.install,
        "runs_on": status.runs_on,
        "notes": list(status.notes),
    }
