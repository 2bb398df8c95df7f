"""Evaluation at compile time, by torch itself: masks, positions, frequencies, whatever reads no input and no parameter.

Only operators of `FOLDABLE` are run, all of them pure and of a size that is known before.
"""

from __future__ import annotations

import torch

from edgec.frontend.torch.call import Call, Known, Ref, Unsupported
from edgec.graph.ir import Value

MAX_FOLDED = 2**27  # elements that folding may make for one model

# Beside the operators that have converters.
_MAKERS = (
    "arange.default arange.start arange.start_step full.default zeros.default "
    "ones.default empty.memory_format scalar_tensor.default eye.default eye.m linspace.default "
    "lift_fresh_copy.default fill.Scalar tril_indices.default "
    "triu_indices.default "
    "hann_window.default hann_window.periodic hamming_window.default hamming_window.periodic "
    "blackman_window.default logspace.default"
)
_FUNCTIONS = "triu.default tril.default outer.default as_strided.default diagonal.default"
FOLDABLE = frozenset(f"aten.{name}" for name in f"{_MAKERS} {_FUNCTIONS}".split())


def references(argument: object) -> list[Ref]:
    """All tensors that an argument names."""
    if isinstance(argument, Ref):
        return [argument]
    return [ref for item in argument for ref in references(item)] if isinstance(argument, list) else []


def evaluate(call: Call, given: dict[Ref, Known | Value], budget: int) -> tuple[tuple[Known | None, ...], int] | None:
    """The results of a call on known tensors and the elements they cost; None where it reads what is not known.

    Unsupported where that would be more than `budget`, or torch refuses.
    """
    if not all(isinstance(entry, Known) and not entry.trainable for entry in given.values()):
        return None
    cost = sum(kind.size for kind in call.results if kind is not None)
    if cost > budget:
        raise Unsupported("the constants of the model are too large")
    tensors = {ref: entry.tensor for ref, entry in given.items()}
    schema = call.target._schema
    positional = [_bound(call.arguments[a.name], tensors) for a in schema.arguments if not a.kwarg_only]
    named = {a.name: _bound(call.arguments[a.name], tensors) for a in schema.arguments if a.kwarg_only}
    try:
        with torch.no_grad():
            results = call.target(*positional, **named)
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        raise Unsupported(f"its constant operands do not fit: {str(error).splitlines()[0]}") from None
    results = results if isinstance(results, list | tuple) else (results,)
    return tuple(Known(result) if isinstance(result, torch.Tensor) else None for result in results), cost


def _bound(argument: object, tensors: dict[Ref, torch.Tensor]) -> object:
    if isinstance(argument, Ref):
        return tensors[argument]
    return [_bound(item, tensors) for item in argument] if isinstance(argument, list) else argument
