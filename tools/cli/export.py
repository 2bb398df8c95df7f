"""`edgec export`."""

from __future__ import annotations

import hashlib
from pathlib import Path

import click

from edgec.compiler.passes.replace_head import HEAD
from edgec.frontend.onnx.export import export_onnx
from edgec.frontend.torch import export_torch, is_torch
from edgec.graph.errors import UserError
from edgec.runtime import load
from edgec.runtime.layout import read_artifact
from edgec.tools.cli.console import echo
from edgec.tools.cli.options import ARTIFACT
from edgec.tools.safetensors import write_safetensors


@click.command("export")
@ARTIFACT
@click.option("--checkpoint", required=True, type=click.Path(path_type=Path), help="What `edgec train` saved.")
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The new model.")
@click.option("--adapters", is_flag=True, help="Only the low-rank adapters, apart from what they adapt (.safetensors).")
@click.option("--model", type=click.Path(path_type=Path), help="The model given to compile; default: beside ARTIFACT.")
def command(artifact: Path, checkpoint: Path, output: Path, adapters: bool, model: Path | None) -> None:
    """Write the trained weights back into the model that ARTIFACT was compiled from, an ONNX or a .pt2 file.

    A new head takes the place of the old one, under the old names, with as many outputs as were given to --new-head.
    To a file that ends in .safetensors go the weights alone, by the names of the model: for a torch module. Low-rank
    adapters are merged into the weights that they adapt, unless they are asked for alone.

    Example: edgec export model.edge --checkpoint tuned.edgeckpt -o tuned.onnx
    """
    weights_alone = output.suffix == ".safetensors"
    if adapters and not weights_alone:
        raise click.UsageError("--adapters writes a .safetensors file")
    source = None if weights_alone else find_source(artifact, model)
    if source is not None:
        _refuse_other(artifact, source, output)
    with load(artifact, threads=1) as opened:
        opened.load_checkpoint(checkpoint)
        values, trained = opened.adapters() if adapters else opened.parameters(), opened.trained
    if adapters and not values:
        message = "the artifact has no low-rank adapters"
        raise UserError("E0601", message, where=str(artifact), hint="compile with --update lora:r=8")
    if source is None:
        write_safetensors(output, values)
        what = "all of adapters" if adapters else f"{len(trained)} of them trained"
        echo(f"{output}: {len(values)} tensors, {what}")
        return
    if is_torch(source):
        export_torch(source, {name: values[name] for name in trained}, output)
    else:
        replaced = read_artifact(artifact).manifest.get("new_head")
        head = {name.removesuffix(HEAD): array for name, array in values.items() if name.endswith(HEAD) and replaced}
        export_onnx(source, {name: values[name] for name in trained if not name.endswith(HEAD)}, output, head)
    echo(f"{output}: {len(trained)} trained tensors in {source.name}")


def _refuse_other(artifact: Path, source: Path, output: Path) -> None:
    """UserError E0111 for a new head of a torch model, E0505 for a model of another format."""
    if is_torch(source) and read_artifact(artifact).manifest.get("new_head"):
        message = "the artifact has a new head, which an exported program has no place for"
        hint = f"-o {output.stem}.safetensors writes all weights; those of the head have names that end in `.head`"
        raise UserError("E0111", message, where=str(artifact), hint=hint)
    if is_torch(source) != (output.suffix == ".pt2"):
        message = f"weights go back into the format that they came from, that of {source.name}"
        hint = f"-o {output.stem}{source.suffix}, or {output.stem}.safetensors for the weights alone"
        raise UserError("E0505", message, where=str(output), hint=hint)


def find_source(artifact: Path, model: Path | None) -> Path:
    """The model an artifact came from, by its hash. UserError E0507."""
    provenance = read_artifact(artifact).manifest.get("provenance", {})
    if model is None and "model" not in provenance:
        message = "it was compiled from a model in memory, which no file holds"
        hint = "--model MODEL names a file that holds it; `edgec export` with -o weights.safetensors needs none"
        raise UserError("E0507", message, where=str(artifact), hint=hint)
    source = model or artifact.parent / provenance["model"]
    if not source.is_file():
        message = "the model that it was compiled from cannot be read"
        raise UserError("E0507", message, where=str(source), hint="--model MODEL says where it is")
    with source.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != provenance.get("model_sha256", digest):
        message = f"this is not the model that {artifact.name} was compiled from"
        raise UserError("E0507", message, where=str(source), hint="--model MODEL says where that is")
    return source
