"""A module and example inputs to an `ExportedProgram`, and what may go wrong on the way, as errors with a place."""

from __future__ import annotations

import contextlib
import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from edgec.frontend.torch.program import off_cpu, quiet
from edgec.graph.errors import UserError

_TORCH = Path(torch.__file__).parent
_OURS = Path(__file__).parent
_DATA_DEPENDENT = re.compile(r"data-dependent|unbacked|Could not (guard|extract)|specialized .* from a tensor", re.I)


def export_module(
    module: torch.nn.Module, example_inputs: Sequence[object] | Mapping[str, object] | None
) -> ExportedProgram:
    """`torch.export` of `module` in eval mode; its mode is put back. UserError E0108, E0109, E0110."""
    label = type(module).__name__
    args, kwargs = example_arguments(example_inputs, label)
    _refuse_devices(module, args, kwargs, label)
    with mode(module, training=False), quiet():
        try:
            return torch.export.export(module, args, kwargs)
        except Exception as error:  # whatever the user's code raises, or torch, about it
            raise _explained(module, args, kwargs, error, label) from error


@contextlib.contextmanager
def mode(module: torch.nn.Module, training: bool) -> Iterator[None]:
    """Every part of `module` in training or in eval mode, each back in its own afterwards."""
    before = {part: part.training for part in module.modules()}
    module.train(training)
    try:
        yield
    finally:
        for part, was in before.items():
            part.training = was


def example_arguments(
    example_inputs: Sequence[object] | Mapping[str, object] | None, label: str
) -> tuple[tuple[object, ...], dict[str, object]]:
    hint = "example_inputs=(x,): the arguments of forward, as a tuple, or a dict by name"
    if example_inputs is None:
        raise UserError("E0109", "a torch module needs example inputs, which fix its shapes", where=label, hint=hint)
    if isinstance(example_inputs, Mapping):
        return (), dict(example_inputs)
    if isinstance(example_inputs, torch.Tensor) or not isinstance(example_inputs, Sequence):
        kind = type(example_inputs).__name__
        raise UserError("E0109", f"the example inputs are a {kind}, not a tuple", where=label, hint=hint)
    return tuple(example_inputs), {}


def _refuse_devices(module: torch.nn.Module, args: tuple, kwargs: dict, label: str) -> None:
    named = [*module.named_parameters(), *module.named_buffers()]
    for index, leaf in enumerate(pytree.tree_leaves((args, kwargs))):
        if isinstance(leaf, torch.Tensor):
            named.append((f"example input {index}", leaf))
    found = {name: tensor.device for name, tensor in named if tensor.device.type != "cpu"}
    if found:
        raise off_cpu(found, label)


def _explained(module: torch.nn.Module, args: tuple, kwargs: dict, error: Exception, label: str) -> UserError:
    """What the failure of an export means: wrong inputs if the module itself does not run on them."""
    try:
        with torch.no_grad():
            module(*args, **kwargs)
    except Exception as own:
        return UserError(
            "E0109",
            f"the module does not run on the example inputs: {_first_line(own)}",
            where=_place(own) or label,
            hint="example_inputs are the arguments of forward: their number, shapes and dtypes",
        )
    if _DATA_DEPENDENT.search(str(error)) or "DataDependent" in type(error).__name__:
        message = "control flow or a shape depends on the values of a tensor"
        hint = "programs are static: compute both branches and torch.where them, or take the decision outside"
    elif "not a known type" in str(error):
        found = re.search(r"<class '([^']+)'>", str(error))
        kind = found.group(1).rpartition(".")[2] if found else "container"
        message = f"forward takes or returns a `{kind}`, of which torch.export does not know what tensors it holds"
        hint = "wrap the module so that it takes and returns tensors, tuples, lists and dicts; no cache"
    else:
        message = f"torch.export refuses the module: {_first_line(error)}"
        hint = "torch.export.export(module.eval(), example_inputs) shows torch's own report"
    return UserError("E0108", message, where=_place(error) or label, hint=hint)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    text = lines[0].strip() if lines else type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}..."


def _place(error: BaseException | None) -> str:
    """File and line of the innermost frame that is neither torch's nor ours."""
    while error is not None:
        for frame in reversed(traceback.extract_tb(error.__traceback__)):
            path = Path(frame.filename)
            if _TORCH not in path.parents and _OURS not in path.parents and path.suffix == ".py":
                if path.stem not in ("contextlib", "copyreg") and path.parts[-2:] != ("tools", "api.py"):
                    return f"{path.name}:{frame.lineno}"
        error = error.__cause__ or error.__context__
    return ""
