"""PyTorch models to graphs; see frontend/README.md. torch itself is loaded by the first call, not by the import."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgec.graph.errors import UserError
from edgec.graph.ir import Module

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

    TorchSource = torch.nn.Module | ExportedProgram | str | Path

__all__ = ["export_torch", "is_torch", "lost_randomness", "read_torch", "run_torch"]


def read_torch(
    source: TorchSource,
    example_inputs: Sequence[object] | Mapping[str, object] | None = None,
    *,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    batch: int | None = None,
) -> Module:
    """Import a torch module, an `ExportedProgram` or a `.pt2` file as a module with the program `infer`.

    A module is exported in eval mode with `example_inputs`, the arguments of its forward: positional, or by name in a
    mapping. `shapes` and `batch` bind the dynamic dimensions of a program that was exported with such. Parameters and
    buffers keep their names in state_dict and share their data; inputs keep the names of forward's arguments.

    UserError: E0101, E0102, E0106 for the file, E0104 and E0105 for shapes, E0103 for everything that cannot be
    imported, in one list, E0108 for a module that cannot be exported, E0109 for example inputs that do not fit, E0110
    for tensors on another device, E0201 for operands that do not fit one another, E0402 without torch.
    """
    with _needs_torch():
        from edgec.frontend.torch.importer import import_torch  # noqa: PLC0415  torch is an extra, and heavy
    return import_torch(source, example_inputs, shapes or {}, batch)


def lost_randomness(module: torch.nn.Module, example_inputs: Sequence[object] | Mapping[str, object]) -> list[str]:
    """Layers, with their class, that draw at random in training what `read_torch` finds no trace of.

    Dropout of elements is kept. That of channels, within attention and between layers of recurrent nets, and dropped
    branches are not. Runs forward twice; parameters, buffers and torch's generator are as before.
    """
    with _needs_torch():
        from edgec.frontend.torch.randomness import lost_randomness as found  # noqa: PLC0415
    return found(module, example_inputs)


def run_torch(path: str | Path, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs of a `.pt2` file by torch itself, under the names of `read_torch`.

    UserError: E0601 for an input that is not given, E0106 where torch cannot run it, and what reading may raise.
    """
    with _needs_torch():
        from edgec.frontend.torch.run import run_program  # noqa: PLC0415
    return run_program(Path(path), feeds)


def export_torch(source: str | Path, values: Mapping[str, np.ndarray], path: str | Path) -> None:
    """Write the `.pt2` file `source` to `path` with the parameters named in `values` replaced, all else unchanged.

    UserError: E0601 and E0603 for names and shapes that are not the model's, E0505, and what reading may raise.
    """
    with _needs_torch():
        from edgec.frontend.torch.run import write_program  # noqa: PLC0415
    write_program(Path(source), values, Path(path))


@contextlib.contextmanager
def _needs_torch() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise UserError("E0402", "torch is not installed", hint="pip install 'edgec[torch]'") from None


def is_torch(model: object) -> bool:
    """Whether `model` is for `read_torch`: a `.pt2` path, or an object of a class that torch defines."""
    if isinstance(model, str | Path):
        return Path(model).suffix == ".pt2"
    names = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(model).__mro__}
    return not names.isdisjoint({"torch.nn.modules.module.Module", "torch.export.exported_program.ExportedProgram"})
