"""`edgec export`."""

from __future__ import annotations

import hashlib
from pathlib import Path

import click

from edgec.frontend.onnx.export import export_onnx
from edgec.graph.errors import UserError
from edgec.runtime import load
from edgec.runtime.layout import read_artifact
from edgec.tools.cli.console import echo
from edgec.tools.cli.options import ARTIFACT


@click.command("export")
@ARTIFACT
@click.option("--checkpoint", required=True, type=click.Path(path_type=Path), help="What `edgec train` saved.")
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The new model.")
@click.option("--model", type=click.Path(path_type=Path), help="The model given to compile; default: beside ARTIFACT.")
def command(artifact: Path, checkpoint: Path, output: Path, model: Path | None) -> None:
    """Write the trained weights back into the ONNX model that ARTIFACT was compiled from.

    Example: edgec export model.edge --checkpoint tuned.edgeckpt -o tuned.onnx
    """
    source = find_source(artifact, model)
    if read_artifact(artifact).manifest.get("new_head"):
        message = "the artifact has a new head, which the model has no place for"
        hint = "`parameters()` of the loaded artifact has the weights, by names that end in `.head`"
        raise UserError("E0111", message, where=str(artifact), hint=hint)
    with load(artifact, threads=1) as opened:
        opened.load_checkpoint(checkpoint)
        values = opened.parameters()
        tuned = {name: values[name] for name in opened.trained}
    export_onnx(source, tuned, output)
    echo(f"{output}: {len(tuned)} trained tensors in {source.name}")


def find_source(artifact: Path, model: Path | None) -> Path:
    """The model an artifact came from, by its hash. UserError E0507."""
    provenance = read_artifact(artifact).manifest.get("provenance", {})
    source = model or artifact.parent / provenance.get("model", "")
    if not source.is_file():
        message = "the model that it was compiled from cannot be read"
        raise UserError("E0507", message, where=str(source), hint="--model MODEL says where it is")
    with source.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != provenance.get("model_sha256", digest):
        message = f"this is not the model that {artifact.name} was compiled from"
        raise UserError("E0507", message, where=str(source), hint="--model MODEL says where that is")
    return source
