"""`TvmBackend`: what the compiler asks of code generation, answered from shapes and rules. Loads no tvm."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence

from edgec.backends.base import Argument, CanFuse, CodeImage, Group, KernelSpec, Lowering, Part, Progress, Target
from edgec.backends.tvm.attention import lower_attention, pays
from edgec.backends.tvm.build import build
from edgec.backends.tvm.fusion import Fusion
from edgec.backends.tvm.gpu.launches import guarded_spec, items_wait, merge_key, merged_spec
from edgec.backends.tvm.layouts import Layouts, scalar_storage
from edgec.backends.tvm.lower_tails import pays as pays_as_tail
from edgec.backends.tvm.products import Request
from edgec.backends.tvm.strategies import lower_group, with_tail
from edgec.backends.tvm.tuning.choice import MODEL, Chooser
from edgec.graph.ir import Node, Role, Value
from edgec.graph.ops import ALL_OPS
from edgec.graph.ops.gate_by_bits import GateByBits
from edgec.graph.types import DType
from edgec.runtime.abi import Arch, Storage

# What kernels know. Half floats are computed in f32 and rounded once per op.
_DTYPES = (DType.F32, DType.F16, DType.BF16, DType.I8, DType.U8, DType.I32, DType.I64, DType.BOOL)


class TvmBackend:
    """Code generation for one CPU or micro-controller."""

    def __init__(self, target: Target, tuning: Chooser = MODEL):
        self.target, self.tuning = target, tuning

    def unsupported(self, node: Node) -> str | None:
        if type(node.op) not in ALL_OPS:
            return f"there is no lowering for `{node.op.name}`"
        for value in (*node.inputs, *node.outputs):
            if value.type.dtype not in _DTYPES:
                return f"`{node.op.name}` cannot be computed in {value.type.dtype.value}"
        return None

    def fusion(self) -> CanFuse:
        return Fusion(self.target).allows

    def attends(self, group: Group) -> bool:
        if self.target.lanes == 1 or self.target.arch.is_device or not pays(group):
            return False
        return lower_attention(Request(group, self._expected(group), {}, self.target, self.tuning)) is not None

    def takes_tail(self, group: Group) -> bool:
        if not pays_as_tail(group):
            return False
        return with_tail(group, self._expected(group), {}, self.target, self.tuning) is not None

    def _expected(self, group: Group) -> dict[Value, Storage]:
        """Where the tensors of a group will lie, before that is settled."""
        layouts = Layouts(self.target)
        # Readers of an input that is not row-major get a copy that lies as it should.
        return {
            value: layouts.of_activation(value) if value.role in (None, Role.INPUT) else layouts.expected(value)
            for value in (*group.inputs, *group.outputs)
        }

    def choose_storage(self, programs: Sequence[Sequence[Group]]) -> dict[str, Storage]:
        chosen: dict[str, Storage] = {}
        if self.target.lanes == 1:
            return chosen
        leaves, layouts = (Role.PARAM, Role.STATE, Role.CONSTANT), Layouts(self.target)
        for value in (value for groups in programs for group in groups for value in group.inputs):
            if value.role in leaves and value.name not in chosen:
                storage = layouts.of_weight(value)
                if storage is not None:
                    chosen[value.name] = storage
        return chosen

    def activation_storage(self, values: Iterable[Value]) -> dict[Value, Storage]:
        if self.target.lanes == 1:
            return {value: scalar_storage(value) for value in values}
        layouts = Layouts(self.target)
        return {value: layouts.of_activation(value) for value in values}

    def in_place(self, group: Group) -> Sequence[tuple[Value, Value]]:
        """An output may overwrite what only elementwise nodes read, element by element."""
        if group.is_attention:
            return ()
        made = {value for node in group.nodes for value in node.outputs}
        fixed = () if group.anchor.op.elementwise else group.anchor.inputs
        if isinstance(group.anchor.op, GateByBits):
            fixed = fixed[1:]
        if group.tail is not None:
            made.update(group.tail.inputs)  # it reads what has been stored, and beside that
        candidates = [
            value
            for value in group.inputs
            if value not in made and not any(value is v for v in fixed) and value.role is not Role.INPUT
        ]
        outputs = [value for value in group.outputs if value.producer is not group.tail]
        return [(output, value) for output in outputs for value in candidates if value.type == output.type]

    def lower(self, group: Group, storage: Mapping[Value, Storage], alias: Mapping[Value, Value]) -> Lowering:
        return lower_group(group, storage, alias, self.target, self.tuning)

    def guarded(self, spec: KernelSpec, words: int) -> KernelSpec | None:
        return guarded_spec(spec, words) if self.target.arch.is_device else None

    def merge_key(self, spec: KernelSpec, tasks: int) -> Hashable:
        # PoCL loses what items hold behind a barrier in a branch that more code follows: gradients were wrong.
        if not self.target.arch.is_device or (self.target.arch is Arch.OPENCL and items_wait(spec)):
            return None
        return merge_key(spec, tasks)

    def merged(self, parts: Sequence[Part], arguments: Sequence[Argument]) -> KernelSpec | None:
        return merged_spec(parts, arguments)

    def build(self, specs: Sequence[KernelSpec], *, progress: Progress | None = None) -> CodeImage:
        return build(specs, self.target, progress=progress)
