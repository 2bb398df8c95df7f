"""`edgec inspect`."""

from __future__ import annotations

from pathlib import Path

import click

from edgec.runtime.format import Artifact, Program, Slot
from edgec.runtime.layout import read_artifact
from edgec.tools.cli.console import echo, format_bytes, format_count, show_json, show_table
from edgec.tools.cli.options import ARTIFACT, JSON


@click.command("inspect")
@ARTIFACT
@JSON
def command(artifact: Path, as_json: bool) -> None:
    """Show the programs, tensors, targets and origin of ARTIFACT.

    Example: edgec inspect model.edge --json
    """
    content = read_artifact(artifact)
    if as_json:
        show_json(_record(content, artifact.stat().st_size))
    else:
        _show(content, artifact)


def _record(content: Artifact, size: int) -> dict:
    """The manifest, which has `programs` and `code`, and what the tables of the file itself say."""
    return {
        **content.manifest,
        "artifact_bytes": size,
        "fingerprint": content.fingerprint.hex(),
        "signatures": {program.name: _signature(program) for program in content.variants[0].programs},
        "tensors": [
            {"name": t.name, "kind": t.kind.name.lower(), "dtype": t.data.dtype.name, "shape": list(t.data.shape)}
            for t in content.tensors
        ],
    }


def _signature(program: Program) -> list[dict]:
    return [
        {"name": b.name, "role": b.slot.name.lower(), "dtype": b.dtype, "shape": list(b.shape)}
        for b in program.bindings
    ]


def _show(content: Artifact, path: Path) -> None:
    trained = {p.tensor for variant in content.variants for p in variant.placements if p.trained}
    data = sum(tensor.data.nbytes for tensor in content.tensors)
    provenance = content.manifest.get("provenance", {})
    origin = f" from {provenance['model']}" if provenance.get("model") else ""
    echo(f"{path}: {format_bytes(path.stat().st_size)}{origin}, fingerprint {content.fingerprint.hex()}")
    echo(f"{len(content.tensors)} tensors of {format_bytes(data)}, {len(trained)} of them trained")
    echo("")
    show_table(
        ("target", "machine", "needs", "kernels", "code"),
        [
            (
                variant.target,
                variant.arch.name.lower(),
                " ".join(feature.name.lower() for feature in variant.features) or "baseline",
                str(len(variant.kernels)),
                format_bytes(len(variant.code)),
            )
            for variant in content.variants
        ],
    )
    for program in content.variants[0].programs:
        echo("")
        macs = sum(call.macs for call in program.calls)
        echo(f"{program.name}: {len(program.calls)} calls, {format_count(macs)} MACs")
        roles = {Slot.INPUT: "takes", Slot.SCALAR: "takes", Slot.OUTPUT: "gives", Slot.LOSS: "gives"}
        show_table(
            ("", "name", "type"),
            [(roles[b.slot], b.name, f"{b.dtype}[{','.join(map(str, b.shape))}]") for b in program.bindings],
        )
