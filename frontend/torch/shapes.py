"""Binds the dynamic dimensions of an exported program to numbers: a new export at those sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from edgec.frontend.torch.program import quiet
from edgec.graph.errors import UserError

Shape = tuple[int, ...]
Dim = int | str


def bind_shapes(
    exported: ExportedProgram, shapes: Mapping[str, Shape], batch: int | None, label: str
) -> ExportedProgram:
    """`exported` with static shapes: those of `shapes`, `batch` for open leading extents.

    UserError E0105 for a shape that contradicts the program, E0104 for dimensions that stay open, E0108 where the
    program cannot have the sizes.
    """
    inputs = _inputs(exported)
    given = dict(shapes)
    for name, shape in given.items():
        _check(name, shape, inputs, label)
    symbols: dict[str, int] = {}
    for name, shape in given.items():
        for dim, size in zip(inputs[name], shape, strict=True):
            if isinstance(dim, str) and symbols.setdefault(dim, size) != size:
                message = f"`{dim}` would be {symbols[dim]} and {size}: one symbol has one value"
                raise UserError("E0105", message, where=f"{label}: input `{name}`")
    if batch is not None:
        leads = [dims[0] for dims in inputs.values() if dims]
        open_leads = [dim for dim in leads if isinstance(dim, str)]
        if not open_leads and batch not in leads:
            message = f"no input has a leading dimension that a batch of {batch} could set"
            raise UserError("E0105", message, where=label, hint=_listed(inputs))
        for dim in open_leads:
            symbols.setdefault(dim, batch)
    bound = {name: [symbols.get(d) if isinstance(d, str) else d for d in dims] for name, dims in inputs.items()}
    unbound = [name for name, dims in bound.items() if None in dims]
    if unbound:
        lines = "".join(f"\n  `{name}` {_text(inputs[name])}" for name in unbound)
        message = f"no sizes were given for the dynamic shapes of:{lines}"
        raise UserError("E0104", message, where=label, hint=_flags({name: bound[name] for name in unbound}))
    if not any(isinstance(dim, str) for dims in inputs.values() for dim in dims):
        return exported
    return _exported_again(exported, {name: tuple(dims) for name, dims in bound.items()}, label)


def _inputs(exported: ExportedProgram) -> dict[str, tuple[Dim, ...]]:
    """Inputs by name: numbers, and symbols where a dimension is open."""
    names = {spec.arg.name for spec in exported.graph_signature.input_specs if spec.kind is InputKind.USER_INPUT}
    dims: dict[str, tuple[Dim, ...]] = {}
    for node in exported.graph.nodes:
        value = node.meta.get("val")
        if node.op == "placeholder" and node.name in names and isinstance(value, torch.Tensor):
            dims[node.name] = tuple(size if type(size) is int else str(size) for size in value.shape)
    return dims


def _check(name: str, shape: Shape, inputs: Mapping[str, tuple[Dim, ...]], label: str) -> None:
    if name not in inputs:
        raise UserError("E0105", f"the model has no input `{name}`", where=label, hint=_listed(inputs))
    if any(type(size) is not int or size < 1 for size in shape):
        raise UserError("E0105", f"the shape {_text(shape)} for `{name}` is not all positive integers", where=label)
    dims = inputs[name]
    if len(dims) != len(shape) or any(isinstance(d, int) and d != n for d, n in zip(dims, shape, strict=True)):
        message = f"the shape {_text(shape)} contradicts the model's `{name}` {_text(dims)}"
        raise UserError("E0105", message, where=label, hint="a module is exported for the shapes of its example inputs")


def _exported_again(exported: ExportedProgram, bound: Mapping[str, Shape], label: str) -> ExportedProgram:
    values = []
    for node in exported.graph.nodes:
        if node.op == "placeholder" and node.name in bound:
            if math.prod(bound[node.name]) > 2**31 - 1:
                raise UserError("E0105", f"the shape for `{node.name}` is too large", where=label)
            values.append(torch.zeros(bound[node.name], dtype=node.meta["val"].dtype))
    spec = exported.call_spec.in_spec
    if spec is None or spec.num_leaves != len(values):
        raise UserError("E0108", "the program takes other things than tensors", where=label)
    args, kwargs = torch.utils._pytree.tree_unflatten(values, spec)
    with quiet():
        try:
            functional = exported.run_decompositions({})  # torch cannot export in-place operations a second time
            return torch.export.export(functional.module(), tuple(args), dict(kwargs))
        except Exception as error:  # guards of the program, and whatever else torch says about sizes
            line = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise UserError("E0105", f"the program does not take these shapes: {line}", where=label) from error


def _flags(bound: Mapping[str, list[int | None]]) -> str:
    """The flags that would bind every input: 1 for leading dimensions, letters for the others."""
    flags, letters = [], []
    for name, dims in bound.items():
        sizes = [dim or (1 if axis == 0 else f"D{axis}") for axis, dim in enumerate(dims)]
        letters += [size for size in sizes if isinstance(size, str)]
        flags.append(f"--shape {name}={','.join(map(str, sizes))}")
    numbers = f" with numbers for {', '.join(dict.fromkeys(letters))}" if letters else ""
    return " ".join(flags) + numbers


def _text(shape: tuple[Dim, ...]) -> str:
    return f"[{','.join(map(str, shape))}]"


def _listed(inputs: Mapping[str, tuple[Dim, ...]]) -> str:
    return "its inputs: " + ", ".join(f"`{name}` {_text(dims)}" for name, dims in inputs.items())
