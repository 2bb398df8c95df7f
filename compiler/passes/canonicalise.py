"""Pass `canonicalise`: one form for what can be written in several; nodes that do nothing go.

Every rule looks at one node and gives the value that takes its place, or None. Rules run until none applies. Later
passes rely on the forms: no identities, no reshape of a reshape, no broadcast before an elementwise op that broadcasts
by itself; a matmul with a matrix on the right has one on the left, and transposition of its operands is an attribute.
While a train program is still to be made, rules that would hide the batch axis wait for the second run.

Ensures CANONICAL.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from edgec.compiler.passbase import Options
from edgec.compiler.rewrite import param_behind, remove_dead_nodes, replace_node, reshape
from edgec.graph.ir import Graph, Module, Node, Role, Value
from edgec.graph.ops.add import Add
from edgec.graph.ops.avg_pool2d import AvgPool2d
from edgec.graph.ops.bit_xor import BitXor
from edgec.graph.ops.broadcast_to import BroadcastTo
from edgec.graph.ops.cast import Cast
from edgec.graph.ops.clip import Clip
from edgec.graph.ops.concat import Concat
from edgec.graph.ops.div import Div
from edgec.graph.ops.dropout import Dropout
from edgec.graph.ops.elementwise import Binary, Unary, UnaryGrad
from edgec.graph.ops.equal import Equal
from edgec.graph.ops.fmod import Fmod
from edgec.graph.ops.less import Less
from edgec.graph.ops.less_equal import LessEqual
from edgec.graph.ops.matmul import MatMul
from edgec.graph.ops.max_pool2d import MaxPool2d
from edgec.graph.ops.mod import Mod
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.pad import Pad
from edgec.graph.ops.reduce_mean import ReduceMean
from edgec.graph.ops.reduction import Reduction
from edgec.graph.ops.relu import Relu
from edgec.graph.ops.reshape import Reshape
from edgec.graph.ops.slice import Slice
from edgec.graph.ops.sub import Sub
from edgec.graph.ops.transpose import Transpose

Rule = Callable[[Graph, Node], Value | None]


def canonicalise(module: Module, options: Options) -> bool:
    batch_is_final = options.train is None or "train" in module.programs
    rules = (*_RULES, *_FINAL_BATCH_RULES) if batch_is_final else _RULES
    changed = False
    for graph in module.programs.values():
        while _sweep(graph, rules):
            changed = True
    return changed


def _sweep(graph: Graph, rules: tuple[Rule, ...]) -> bool:
    changed = False
    for node in list(graph.nodes):
        for rule in rules:
            nodes = len(graph.nodes)
            value = rule(graph, node)
            if value is not None:
                replace_node(graph, node, value, rename=len(graph.nodes) > nodes)
                changed = True
                break
    # Dead nodes would count as readers of what they read.
    return remove_dead_nodes(graph) or changed


def _drop_identity(graph: Graph, node: Node) -> Value | None:
    """Ops that move data, asked to move nothing."""
    op, x = node.op, node.inputs[0]
    idle = (
        (isinstance(op, Reshape | BroadcastTo | Slice | Pad | Cast) and node.output.type == x.type)
        or (isinstance(op, Concat) and len(node.inputs) == 1)
        or (isinstance(op, Transpose) and op.perm == tuple(range(x.type.rank)))
        or (isinstance(op, Reduction) and not op.axes)
        or (isinstance(op, Clip) and op.low == -math.inf and op.high == math.inf)
        or (isinstance(op, Relu) and x.producer is not None and isinstance(x.producer.op, Relu))
        or (
            isinstance(op, MaxPool2d | AvgPool2d)
            and (op.kernel_size, op.strides, op.pads) == ((1, 1), (1, 1), (0, 0, 0, 0))
        )
    )
    return x if idle else None


def _drop_neutral_operand(graph: Graph, node: Node) -> Value | None:
    """x + 0, x - 0, x * 1, x / 1, unless the constant broadcasts x."""
    if not isinstance(node.op, Add | Sub | Mul | Div):
        return None
    neutral = 0 if isinstance(node.op, Add | Sub) else 1
    sides = ((0, 1), (1, 0)) if isinstance(node.op, Add | Mul) else ((0, 1),)
    for kept, dropped in sides:
        x, c = node.inputs[kept], node.inputs[dropped]
        if c.role is Role.CONSTANT and x.type == node.output.type and np.all(c.data == neutral):
            return x
    return None


def _know_self_combination(graph: Graph, node: Node) -> Value | None:
    """x - x, x ^ x, x < x, x == x and such are numbers known here, except where a float may be NaN.

    They stand in definitions of composite operators; a kernel would fill memory with a constant, which none can.
    """
    if len(node.inputs) != 2 or node.inputs[0] is not node.inputs[1]:
        return None
    x, result = node.inputs[0].type, node.output.type
    whole = not x.dtype.is_float
    if isinstance(node.op, Less) or (whole and isinstance(node.op, Sub | BitXor | Mod | Fmod)):
        number = 0
    elif whole and isinstance(node.op, Equal | LessEqual):
        number = 1
    else:
        return None
    scalar = graph.constant(np.array(number, result.dtype.numpy), f"{node.output.name}.c")
    return graph.emit1(BroadcastTo(result.shape), scalar, source=node.source, before=node)


def _merge_reshapes(graph: Graph, node: Node) -> Value | None:
    inner = node.inputs[0].producer
    if not (isinstance(node.op, Reshape) and inner is not None and isinstance(inner.op, Reshape)):
        return None
    return reshape(graph, node.inputs[0], node.op.shape, before=node)


def _merge_transposes(graph: Graph, node: Node) -> Value | None:
    inner = node.inputs[0].producer
    if not (isinstance(node.op, Transpose) and inner is not None and isinstance(inner.op, Transpose)):
        return None
    composed = Transpose(tuple(inner.op.perm[axis] for axis in node.op.perm))
    return graph.emit1(composed, inner.inputs[0], source=node.source, before=node)


def _drop_idle_dropout(graph: Graph, node: Node) -> Value | None:
    """Outside training, and where training does not want it, dropout does nothing."""
    return node.inputs[0] if isinstance(node.op, Dropout) and len(node.inputs) == 1 else None


def _reshape_unit_transpose(graph: Graph, node: Node) -> Value | None:
    """A transposition that keeps the order of all axes longer than 1 is a reshape."""
    if not isinstance(node.op, Transpose):
        return None
    kept = [axis for axis in node.op.perm if node.inputs[0].type.shape[axis] != 1]
    if kept != sorted(kept):
        return None
    return graph.emit1(Reshape(node.output.type.shape), node.inputs[0], source=node.source, before=node)


def _reshape_unit_reduction(graph: Graph, node: Node) -> Value | None:
    """Over axes of extent 1, a sum, mean or maximum is a reshape."""
    op, x = node.op, node.inputs[0]
    if not isinstance(op, Reduction) or any(x.type.shape[axis] != 1 for axis in op.axes):
        return None
    return graph.emit1(Reshape(node.output.type.shape), x, source=node.source, before=node)


def _global_pool_is_mean(graph: Graph, node: Node) -> Value | None:
    op, x = node.op, node.inputs[0]
    if isinstance(op, AvgPool2d) and op.kernel_size == x.type.shape[2:] and op.pads == (0, 0, 0, 0):
        return graph.emit1(ReduceMean((2, 3), keepdims=True), x, source=node.source, before=node)
    return None


def _pool_before_activation(graph: Graph, node: Node) -> Value | None:
    """The maximum of a window's relus or clips is that of the maximum: of fewer elements, whose gradient asks only
    where the maximum passed, not where all that it was taken of did.
    """
    inner = node.inputs[0].producer if node.inputs else None
    if not isinstance(node.op, MaxPool2d) or inner is None or not isinstance(inner.op, Relu | Clip):
        return None
    if len(inner.output.uses) > 1 or inner.output in graph.results():
        return None
    pooled = graph.emit1(node.op, inner.inputs[0], source=node.source, before=node)
    return graph.emit1(inner.op, pooled, source=inner.source, before=node)


def _drop_broadcast(graph: Graph, node: Node) -> Value | None:
    """Binary elementwise ops broadcast by themselves."""
    if not isinstance(node.op, Binary):
        return None
    for slot, value in enumerate(node.inputs):
        if value.producer is None or not isinstance(value.producer.op, BroadcastTo):
            continue
        operands = list(node.inputs)
        operands[slot] = value.producer.inputs[0]
        if node.op.infer(*(v.type for v in operands)) == (node.output.type,):
            return graph.emit1(node.op, *operands, source=node.source, before=node)
    return None


def _flatten_matmul(graph: Graph, node: Node) -> Value | None:
    """a[...,M,K] times a matrix is one product of [...*M,K]: so its weight gradient is one product too."""
    if not isinstance(node.op, MatMul) or node.op.transpose_a:
        return None
    a, b = node.inputs
    if a.type.rank == 2 or b.type.rank != 2:
        return None
    flat = reshape(graph, a, (math.prod(a.type.shape[:-1]), a.type.shape[-1]), before=node)
    product = graph.emit1(node.op, flat, b, source=node.source, before=node)
    return graph.emit1(Reshape(node.output.type.shape), product, source=node.source, before=node)


def _sink_reshape(graph: Graph, node: Node) -> Value | None:
    """What is done element by element to a flattened product is done before its reshape, and so can join its kernel."""
    if not isinstance(node.op, Unary | UnaryGrad | Binary):
        return None
    shape = node.output.type.shape
    flat = next((inner.type.shape for value in node.inputs if (inner := _flattened(value, shape)) is not None), None)
    if flat is None:
        return None
    operands = []
    for value in node.inputs:
        if value.type.shape == shape:
            operands.append(reshape(graph, value, flat, before=node))
        elif math.prod(value.type.shape[:-1]) == 1:  # one for all rows
            operands.append(reshape(graph, value, value.type.shape[-1:], before=node))
        else:
            return None
    done = graph.emit1(node.op, *operands, source=node.source, before=node)
    return graph.emit1(Reshape(shape), done, source=node.source, before=node)


def _flattened(value: Value, shape: tuple[int, ...]) -> Value | None:
    """The matrix behind a value of `shape` that is a product, or was made of one element by element, under another
    shape with the same columns.
    """
    if value.type.shape != shape or value.producer is None or not isinstance(value.producer.op, Reshape):
        return None
    inner = value.producer.inputs[0]
    if inner.producer is None or not isinstance(inner.producer.op, MatMul | Unary | UnaryGrad | Binary):
        return None
    is_matrix = inner.type.rank == 2 and len(shape) > 2 and inner.type.shape[-1] == shape[-1]
    return inner if is_matrix else None


def _absorb_transpose(graph: Graph, node: Node) -> Value | None:
    """A transposition of the last two axes of a matmul's operand becomes the matmul's attribute; not one of a computed
    matrix that many products read, each of which would transpose it again.
    """
    return _transposed_matmul(graph, node, lambda value, uses: value.role is not None or uses == 1)


def _absorb_weight_transpose(graph: Graph, node: Node) -> Value | None:
    """The same of a frozen weight under another shape, however many products read it: it can be stored as they ask."""
    return _transposed_matmul(graph, node, lambda value, _: _is_frozen(param_behind(value)))


def _is_frozen(param: Value | None) -> bool:
    return param is not None and not param.trainable


def _transposed_matmul(graph: Graph, node: Node, absorbs: Callable[[Value, int], bool]) -> Value | None:
    """A matmul without those transpositions that `absorbs`, which is told what is transposed and how many read it."""
    if not isinstance(node.op, MatMul):
        return None
    operands, flags = list(node.inputs), [node.op.transpose_a, node.op.transpose_b]
    for slot, value in enumerate(node.inputs):
        rank = value.type.rank
        swap = Transpose((*range(rank - 2), rank - 1, rank - 2))
        if value.producer is None or value.producer.op != swap:
            continue
        if absorbs(value.producer.inputs[0], len(value.uses)):
            operands[slot], flags[slot] = value.producer.inputs[0], not flags[slot]
    if operands == node.inputs:
        return None
    return graph.emit1(MatMul(*flags), *operands, source=node.source, before=node)


_RULES: tuple[Rule, ...] = (
    _drop_identity,
    _drop_neutral_operand,
    _know_self_combination,
    _merge_reshapes,
    _merge_transposes,
    _global_pool_is_mean,
    _pool_before_activation,
    _drop_broadcast,
    _absorb_transpose,
)

# These would lose sight of a batch of one among other axes of extent 1, which `append_loss` still has to follow, or of
# what is done in training alone; or ask what is trained.
_FINAL_BATCH_RULES: tuple[Rule, ...] = (
    _drop_idle_dropout,
    _reshape_unit_transpose,
    _reshape_unit_reduction,
    _absorb_weight_transpose,
    _flatten_matmul,
    _sink_reshape,
)
