"""Binds the dynamic dimensions of a model's inputs to numbers: from `--shape`, from shared symbols, from `--batch`; and
whole inputs to values, from `--value`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from edgec.frontend.onnx.model import Dim, Input
from edgec.graph.errors import UserError

Shape = tuple[int, ...]


def bind_values(inputs: Sequence[Input], values: Mapping[str, ArrayLike], where: str) -> dict[str, np.ndarray]:
    """Inputs that are fixed, as arrays of their dtype; one number fills a shape that is known.

    UserError E0105 for a name that is no input, and for numbers that its dtype does not have.
    """
    known = {item.name: item for item in inputs}
    fixed = {}
    for name, value in values.items():
        if name not in known:
            raise _no_input(name, known, where)
        item, array = known[name], np.asarray(value)
        sizes = [dim for dim in item.dims or () if isinstance(dim, int)]
        if array.ndim == 0 and item.dims is not None and len(sizes) == len(item.dims):
            array = np.full(sizes, array)
        with np.errstate(all="ignore"):
            converted = array.astype(item.dtype.numpy) if array.dtype.kind in "biuf" else None
        if converted is None or not (item.dtype.is_float or np.array_equal(converted, array)):
            message = f"the value {value} for `{name}` is not of its type {item.dtype.value}"
            raise UserError("E0105", message, where=where)
        fixed[name] = converted
    return fixed


def bind_shapes(
    inputs: Sequence[Input], shapes: Mapping[str, Shape], batch: int | None, where: str
) -> dict[str, Shape]:
    """The static shape of every input.

    A symbol has one value in the whole model; `shapes` may also give it by its own name, as `{"seq": (128,)}`. `batch`
    is for leading dimensions that nothing else sets. UserError E0105 for a shape that contradicts the model or another
    one; E0104 names every input that stays dynamic.
    """
    free = {dim for item in inputs for dim in item.dims or () if isinstance(dim, str)} - {item.name for item in inputs}
    named = {name: size[0] for name, size in shapes.items() if name in free and len(size) == 1 and size[0] > 0}
    whole = {name: shape for name, shape in shapes.items() if name not in named}
    given = _check_given({item.name: item for item in inputs}, whole, free, where)
    symbols = _bind_symbols(inputs, given, named, where)
    if batch is not None:
        _bind_batch(inputs, given, symbols, batch, where)
    bound, open_inputs = {}, []
    for item in inputs:
        dims = given.get(item.name) or [_value(dim, symbols) for dim in item.dims or ()]
        if item.dims is None and item.name not in given or any(dim is None for dim in dims):
            open_inputs.append(item)
        else:
            bound[item.name] = tuple(dims)
    if open_inputs:
        raise _dynamic(open_inputs, symbols, where)
    return bound


def _check_given(
    inputs: Mapping[str, Input], shapes: Mapping[str, Shape], symbols: Collection[str], where: str
) -> dict[str, list[int | None]]:
    """The shapes of the user, each checked against its own input."""
    for name, shape in shapes.items():
        if name not in inputs:
            dimensions = f"; its dimensions: {_quoted(sorted(symbols))}" if symbols else ""
            hint = f"its inputs: {_quoted(inputs)}{dimensions}"
            raise UserError("E0105", f"the model has no input `{name}`", where=where, hint=hint)
        if any(not isinstance(size, int) or size < 0 for size in shape):
            raise UserError("E0105", f"the shape {_text(shape)} for `{name}` is not all integers from 0", where=where)
        dims = inputs[name].dims
        if dims is None:
            continue
        fits = len(dims) == len(shape) and all(
            not isinstance(dim, int) or dim == size for dim, size in zip(dims, shape, strict=True)
        )
        if not fits:
            raise UserError("E0105", f"the shape {_text(shape)} contradicts the model's {inputs[name]}", where=where)
    return {name: list(shape) for name, shape in shapes.items()}


def _bind_symbols(
    inputs: Sequence[Input], given: Mapping[str, list[int | None]], named: Mapping[str, int], where: str
) -> dict[str, int]:
    """What the shapes of the user say about symbols, after what the user says of them by name."""
    symbols = {name: (size, "--shape") for name, size in named.items()}
    for item in inputs:
        for dim, size in zip(item.dims or (), given.get(item.name, ()), strict=False):
            if not isinstance(dim, str):
                continue
            first, who = symbols.setdefault(dim, (size, f"input {item}"))
            if first != size:
                message = f"`{dim}` would be {first} by {who} and {size} by input {item}: one symbol has one value"
                raise UserError("E0105", message, where=where)
    return {name: size for name, (size, _) in symbols.items()}


def _bind_batch(
    inputs: Sequence[Input],
    given: dict[str, list[int | None]],
    symbols: dict[str, int],
    batch: int,
    where: str,
) -> None:
    if batch < 1:
        raise UserError("E0105", f"the batch {batch} is not a positive integer", where=where)
    used = False
    for item in inputs:
        if not item.dims:
            continue
        lead = given[item.name][0] if item.name in given else _value(item.dims[0], symbols)
        used = used or lead == batch
        if lead is not None:
            continue
        used = True
        if isinstance(item.dims[0], str):
            symbols[item.dims[0]] = batch
        else:
            given[item.name] = [batch, *(_value(dim, symbols) for dim in item.dims[1:])]
    if not used:
        raise UserError(
            "E0105", f"no input has a leading dimension that --batch {batch} could set", where=where, hint=_list(inputs)
        )
    # A symbol set for one input may stand elsewhere in another that was completed before it.
    for item in inputs:
        if item.name in given:
            given[item.name] = [
                _value(dim, symbols) if size is None else size
                for dim, size in zip(item.dims or given[item.name], given[item.name], strict=True)
            ]


def _value(dim: Dim, symbols: Mapping[str, int]) -> int | None:
    return symbols.get(dim) if isinstance(dim, str) else dim


def _dynamic(inputs: Sequence[Input], symbols: Mapping[str, int], where: str) -> UserError:
    """E0104 with the flags that would bind every input: 1 for leading dimensions, letters for the others."""
    flags, letters = [], []
    for item in inputs:
        if item.dims is None:
            flags.append(f"--shape {item.name}=SHAPE")
            letters.append("SHAPE")
            continue
        sizes = []
        for axis, dim in enumerate(item.dims):
            size = _value(dim, symbols) or (1 if axis == 0 else None)
            if size is None:
                size = dim.upper() if isinstance(dim, str) and dim.isidentifier() else f"D{axis}"
                letters.append(size)
            sizes.append(str(size))
        flags.append(f"--shape {item.name}={','.join(sizes)}")
    hint = " ".join(flags)
    if letters:
        hint += f" with numbers for {', '.join(dict.fromkeys(letters))}"
    lines = "".join(f"\n  {item}" for item in inputs)
    return UserError("E0104", f"no sizes were given for the dynamic shapes of:{lines}", where=where, hint=hint)


def _quoted(names: Collection[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "none"


def _no_input(name: str, inputs: Mapping[str, Input], where: str) -> UserError:
    names = ", ".join(f"`{known}`" for known in inputs) or "none"
    return UserError("E0105", f"the model has no input `{name}`", where=where, hint=f"its inputs: {names}")


def _text(shape: Sequence[int]) -> str:
    return f"[{','.join(map(str, shape))}]"


def _list(inputs: Sequence[Input]) -> str:
    return "its inputs: " + ", ".join(map(str, inputs))
