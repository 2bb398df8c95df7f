"""Which elementwise nodes a kernel can take as its epilogue. Loads no tvm."""

from __future__ import annotations

from edgec.backends.base import Target
from edgec.backends.tvm.epilogue import classify
from edgec.backends.tvm.generic.kernel import ROW_OPS
from edgec.backends.tvm.layouts import Layouts
from edgec.graph.ir import Node
from edgec.graph.ops.cast import Cast
from edgec.graph.ops.compress import Compress
from edgec.graph.ops.conv2d import Conv2d
from edgec.graph.ops.conv2d_input_grad import Conv2dInputGrad
from edgec.graph.ops.conv2d_weight_grad import Conv2dWeightGrad
from edgec.graph.ops.dropout import Dropout
from edgec.graph.ops.gate_by_bits import GateByBits
from edgec.graph.ops.gather import Gather
from edgec.graph.ops.inside_bits import InsideBits
from edgec.graph.ops.matmul import MatMul
from edgec.graph.ops.transpose import Transpose
from edgec.graph.types import DType

_PRODUCTS = (Conv2d, Conv2dInputGrad, Conv2dWeightGrad, MatMul)
# Half floats are computed in f32 and rounded once per op.
_UNROUNDED = (DType.F32, DType.I8, DType.U8, DType.I32, DType.I64, DType.BOOL)


class Fusion:
    """The rule for one graph as it is: it remembers the storages that it expects (`Layouts`)."""

    def __init__(self, target: Target):
        self._target = target
        self._layouts = Layouts(target)

    def allows(self, anchor: Node, follower: Node) -> bool:
        if isinstance(anchor.op, Transpose) and isinstance(follower.op, Cast):
            # An image on its way to floats: pixels are read once. What is rounded between steps stays apart.
            return follower.inputs[0].type.dtype is DType.U8 and follower.op.dtype is DType.F32
        if anchor.op.elementwise and all(
            v.type.dtype in _UNROUNDED for v in (*anchor.inputs, *follower.inputs, *follower.outputs)
        ):
            return follower.op.elementwise  # comparisons and counts: a map of any types
        # What is compressed is rounded where it is stored, and read by no other node of the group.
        plain = (*follower.inputs, *(() if isinstance(follower.op, Compress) else follower.outputs))
        if not follower.op.elementwise or any(v.type.dtype is not DType.F32 for v in plain):
            return False
        if isinstance(anchor.op, (*ROW_OPS, Dropout, InsideBits, GateByBits)):
            return False
        if self._target.lanes > 1 and isinstance(anchor.op, Gather):
            return False  # slices are copied as they are
        if self._target.lanes == 1 or not isinstance(anchor.op, _PRODUCTS):
            return True
        # A product's epilogue reads simple patterns only; any other operand is better read by a kernel of its own.
        result = anchor.output
        out = self._layouts.expected(result)
        shape = result.type.shape
        readable = all(classify(0, v.type.shape, self._layouts.expected(v), shape, out) for v in follower.inputs)
        return readable and all(value.type.shape == shape for value in follower.outputs)
