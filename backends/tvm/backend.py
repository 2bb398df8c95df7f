"""`TvmBackend`: what the compiler asks of code generation, answered from shapes and rules. Loads no tvm."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from edgec.backends.base import CodeImage, Group, KernelSpec, Lowering, Progress, Target
from edgec.backends.tvm.build import build
from edgec.backends.tvm.epilogue import classify
from edgec.backends.tvm.generic.kernel import ROW_OPS
from edgec.backends.tvm.layouts import activation_storage, scalar_storage, weight_storage
from edgec.backends.tvm.strategies import lower_group
from edgec.graph.ir import Node, Role, Value
from edgec.graph.ops import ALL_OPS
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
from edgec.runtime.abi import Storage

_PRODUCTS = (Conv2d, Conv2dInputGrad, Conv2dWeightGrad, MatMul)
# What kernels know. Half floats are computed in f32 and rounded once per op.
_DTYPES = (DType.F32, DType.F16, DType.BF16, DType.I8, DType.U8, DType.I32, DType.I64, DType.BOOL)
_UNROUNDED = frozenset(_DTYPES) - {DType.F16, DType.BF16}


class TvmBackend:
    """Code generation for one CPU or micro-controller."""

    def __init__(self, target: Target):
        self.target = target

    def unsupported(self, node: Node) -> str | None:
        if type(node.op) not in ALL_OPS:
            return f"there is no lowering for `{node.op.name}`"
        for value in (*node.inputs, *node.outputs):
            if value.type.dtype not in _DTYPES:
                return f"`{node.op.name}` cannot be computed in {value.type.dtype.value}"
        return None

    def can_fuse(self, anchor: Node, follower: Node) -> bool:
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
        if self.target.lanes > 1 and isinstance(anchor.op, Gather):
            return False  # slices are copied as they are
        if self.target.lanes == 1 or not isinstance(anchor.op, _PRODUCTS):
            return True
        # A product's epilogue reads simple patterns only; any other operand is better read by a kernel of its own.
        result = anchor.output
        out = self._expected(result)
        shape = result.type.shape
        readable = all(classify(0, v.type.shape, self._expected(v), shape, out) for v in follower.inputs)
        return readable and all(value.type.shape == shape for value in follower.outputs)

    def choose_storage(self, programs: Sequence[Sequence[Group]]) -> dict[str, Storage]:
        chosen: dict[str, Storage] = {}
        if self.target.lanes == 1:
            return chosen
        leaves = (Role.PARAM, Role.STATE, Role.CONSTANT)
        for value in (value for groups in programs for group in groups for value in group.inputs):
            if value.role in leaves and value.name not in chosen:
                storage = weight_storage(value, self.target)
                if storage is not None:
                    chosen[value.name] = storage
        return chosen

    def activation_storage(self, values: Iterable[Value]) -> dict[Value, Storage]:
        if self.target.lanes == 1:
            return {value: scalar_storage(value) for value in values}
        others: set[Value] = set()
        return {value: activation_storage(value, self.target, others) for value in values}

    def in_place(self, group: Group) -> Sequence[tuple[Value, Value]]:
        """An output may overwrite what only elementwise nodes read, element by element."""
        own = {value for node in group.nodes for value in node.outputs}
        fixed = () if group.anchor.op.elementwise else group.anchor.inputs
        if isinstance(group.anchor.op, GateByBits):
            fixed = fixed[1:]
        candidates = [
            value
            for value in group.inputs
            if value not in own and not any(value is v for v in fixed) and value.role is not Role.INPUT
        ]
        return [(output, value) for output in group.outputs for value in candidates if value.type == output.type]

    def lower(self, group: Group, storage: Mapping[Value, Storage], alias: Mapping[Value, Value]) -> Lowering:
        return lower_group(group, storage, alias, self.target)

    def build(self, specs: Sequence[KernelSpec], *, progress: Progress | None = None) -> CodeImage:
        return build(specs, self.target, progress=progress)

    def _expected(self, value: Value) -> Storage:
        """The storage that a value will have by our own rules."""
        if value.role is None:
            return self.activation_storage([value])[value]
        shape = value.type.shape
        if self.target.lanes == 1 or value.role in (Role.INPUT, Role.SCALAR):
            return Storage.row_major(shape)
        return weight_storage(value, self.target) or Storage.row_major(shape)
