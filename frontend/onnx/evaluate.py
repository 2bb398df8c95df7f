"""Evaluation at compile time of what has a converter: its ops, emitted aside, run by the reference interpreter.

So any operator folds where shapes are computed (`ScatterND`, `CumSum`, `Pad` and whatever exporters think of), not only
those that `fold.py` knows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from edgec.frontend.onnx.context import Context, Converted, Counted, Entry, Known, Results
from edgec.frontend.onnx.model import Node
from edgec.frontend.onnx.ops_quant import QUANTIZED
from edgec.graph.interp import run
from edgec.graph.ir import Graph, Value
from edgec.graph.types import TensorType

MAX_ELEMENTS = 2**20  # of the intermediate results of one node: shapes and masks, not weights
MAX_MACS = 2**22


def evaluated(ctx: Context, node: Node, convert: Callable[[Context, Node], Converted]) -> Results:
    """The results of `convert`: known ones where the node's inputs are known and what it computes is small.

    Quantized weights stay as they are: they are smaller than what they stand for.
    """
    if node.inputs and node.op not in QUANTIZED and ctx.all_known(node):
        with ctx.aside() as graph:
            made = _evaluate(ctx, graph, _tuple(convert(ctx, node)))
        if made is not None:
            return made
    return _tuple(convert(ctx, node))


def _evaluate(ctx: Context, graph: Graph, results: Results) -> Results | None:
    size = sum(value.type.size for node in graph.nodes for value in node.outputs)
    macs = sum(node.op.cost(_types(node.inputs), _types(node.outputs)).macs for node in graph.nodes)
    if size > min(MAX_ELEMENTS, ctx.foldable_elements) or macs > MAX_MACS:
        return None
    for index, result in enumerate(results):
        if isinstance(result, Counted):
            graph.outputs |= {f"{index}": result.value, f"{index}.count": result.count}
        elif isinstance(result, Value):
            graph.outputs[f"{index}"] = result
    arrays = run(graph, {}).outputs
    ctx.count_folded(size)
    return tuple(_known(result, str(index), arrays) for index, result in enumerate(results))


def _known(result: Entry, name: str, arrays: Mapping[str, np.ndarray]) -> Entry:
    if isinstance(result, Counted):
        return Known(np.take(arrays[name], range(int(arrays[f"{name}.count"])), result.axis))
    return Known(arrays[name]) if isinstance(result, Value) else result


def _tuple(converted: Converted) -> Results:
    return converted if isinstance(converted, tuple) else (converted,)


def _types(values: Iterable[Value]) -> tuple[TensorType, ...]:
    return tuple(value.type for value in values)
