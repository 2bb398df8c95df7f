"""Moments of a batch, and what the gradients of a norm's scale and shift sum up: reductions of a term. Loads no tvm."""

from __future__ import annotations

from collections.abc import Sequence

from edgec.backends.base import Lowering
from edgec.backends.tvm.moments import MergeMomentsSpec, PartMomentsSpec, merged_moments
from edgec.backends.tvm.products import Request
from edgec.backends.tvm.reductions import ReduceSpec, Term, call_reduction, term_spec
from edgec.graph.ir import Value
from edgec.graph.ops.moments import Moments
from edgec.graph.ops.norm_param_grad import NormParamGrad


def lower_statistics(request: Request) -> Lowering | None:
    """`moments` and `norm_param_grad` in f32, in any order of the axes with a contiguous innermost one."""
    anchor = request.group.anchor
    if request.alias or request.group.epilogue:
        return None
    match anchor.op:
        case Moments(axes=axes):
            (x, *weights), (mean, variance) = anchor.inputs, anchor.outputs
            count = anchor.op.sharing(x.type.shape, *(share.type.shape for share in weights))
            # The mean in the form in which it broadcasts to x lies where the mean does.
            first, second = (Term.WEIGHTED, Term.WEIGHTED_SQUARE) if weights else (Term.VALUE, Term.CENTRED_SQUARE)
            wanted = [("mean", {mean: first}, (x, *weights), count)]
            wanted.append(("variance", {variance: second}, (x, mean, *weights), count))
        case NormParamGrad(axes=axes):
            dgamma, dbeta = anchor.outputs
            made = {dgamma: Term.NORMAL_PRODUCT, dbeta: Term.VALUE}
            terms = {value: term for value, term in made.items() if value in request.group.outputs}
            reads = max((term.reads for term in terms.values()), default=0)
            wanted = [("norm_param_grad", terms, anchor.inputs[:reads], 1)]
        case _:
            return None
    calls = []
    for name, terms, operands, divisor in wanted:
        if not all(value in request.group.outputs for value in terms):
            if name == "mean":
                return None
            continue
        values = (*operands, *terms)
        spec = _spec(request, f"f32_{name}", tuple(terms.values()), values, axes, divisor)
        if spec is None:
            return None
        calls.append((spec, values))
    if isinstance(anchor.op, Moments) and (merge := merged_moments(calls[0][0])) is not None:
        _call_moments(request, merge)
        return request.lowering()
    for spec, values in calls:
        call_reduction(request, spec, values)
    return request.lowering()


def _call_moments(request: Request, merge: MergeMomentsSpec) -> None:
    (x, *weights), results = request.group.anchor.inputs, request.group.anchor.outputs
    parts = request.workspace(merge.of.results.elements)
    spec = PartMomentsSpec(merge.of)
    request.call(spec, (x, parts), spec.tasks)
    request.call(merge, (parts, *weights, *results), merge.tasks(request.target))


def _spec(
    request: Request, stem: str, terms: tuple[Term, ...], values: Sequence[Value], axes: tuple[int, ...], divisor: int
) -> ReduceSpec | None:
    full = values[0].type.shape
    operands = []
    for value in values:
        kind, storage = value.type, request.storage[value]
        if terms[0] in (Term.CENTRED_SQUARE, Term.WEIGHTED_SQUARE) and value is values[1]:
            # Without the axes it was taken over, which it broadcasts along.
            if not storage.is_row_major:
                return None
            kind = kind.with_shape(tuple(1 if axis in axes else n for axis, n in enumerate(full)))
            storage = type(storage).row_major(kind.shape)
        operands.append((kind, storage))
    return term_spec(stem, terms, operands, axes, divisor, request.target)
