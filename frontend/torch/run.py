"""A `.pt2` file run by torch, and trained values written back into one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.utils import _pytree as pytree

from edgec.frontend.torch.archive import load_archive
from edgec.frontend.torch.context import to_numpy
from edgec.frontend.torch.program import output_names, quiet
from edgec.graph.errors import UserError


def run_program(path: Path, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """See `edgec.frontend.torch.run_torch`."""
    exported = load_archive(path)
    specs = [spec for spec in exported.graph_signature.input_specs if spec.kind is InputKind.USER_INPUT]
    missing = [spec.arg.name for spec in specs if spec.arg.name not in feeds]
    if missing:
        raise UserError("E0601", f"nothing is given for the input `{missing[0]}`", where=str(path))
    values = [torch.from_numpy(np.ascontiguousarray(feeds[spec.arg.name])) for spec in specs]
    args, kwargs = pytree.tree_unflatten(values, exported.call_spec.in_spec)
    try:
        with torch.no_grad(), quiet():
            leaves = pytree.tree_leaves(exported.module()(*args, **kwargs))
    except Exception as error:  # torch's own classes have no common base
        line = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise UserError("E0106", f"torch cannot run the model: {line}", where=str(path)) from error
    names = output_names(exported.call_spec.out_spec, len(leaves))
    pairs = zip(names, leaves, strict=True)
    return {name: to_numpy(leaf) for name, leaf in pairs if isinstance(leaf, torch.Tensor)}


def write_program(source: Path, values: Mapping[str, np.ndarray], path: Path) -> None:
    """See `edgec.frontend.torch.export_torch`."""
    exported = load_archive(source)
    state = exported.state_dict
    for name, value in values.items():
        if name not in state:
            raise UserError("E0601", f"the model has no parameter `{name}`", where=str(source))
        if tuple(state[name].shape) != value.shape:
            message = f"`{name}` has the shape {list(value.shape)}, in the model {list(state[name].shape)}"
            raise UserError("E0603", message, where=str(source))
        with torch.no_grad():
            # In place, so that tied weights stay tied. The file is mapped privately: it does not change.
            state[name].copy_(torch.from_numpy(np.asarray(value, np.float64)))
    _save(exported, path)


def _save(exported: ExportedProgram, path: Path) -> None:
    """Under another name first: who looks sees the old file or the new one."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.pt2")
    try:
        with quiet():
            torch.export.save(exported, temporary)
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        raise UserError("E0505", f"the model cannot be written: {error}", where=str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)
