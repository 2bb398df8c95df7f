"""A backend whose kernels are the numpy references of the ops: what the compiler's own half is tested with.

It makes the compiler's life as hard as a real one does: channels-last activations and weights in panels (on targets
with vector lanes), workspaces, two calls for an anchor with an epilogue, in-place pairs; on a device, kernels that ask
for themselves whether the loss is finite, and merged ones of anything. `plan_interp` executes its artifacts.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgec.backends.base import (
    Argument,
    CanFuse,
    CodeImage,
    Group,
    KernelCall,
    KernelSpec,
    Lowering,
    Part,
    Progress,
    Target,
    Workspace,
)
from edgec.graph.ir import Node, Role, Value
from edgec.graph.ops.base import Op
from edgec.graph.types import DType, TensorType
from edgec.runtime.abi import MAX_DEVICE_ARGS, Access, Arch, Storage

SCALAR_TARGET = Target("reference-scalar", Arch.PORTABLE, "reference", "reference")
VECTOR_TARGET = Target("reference", Arch.PORTABLE, "reference", "reference", lanes=4)
DEVICE_TARGET = Target("reference-device", Arch.CUDA, "reference", "reference", capability=80)


@dataclass(frozen=True)
class Operand:
    """One pointer: a tensor in some storage, and the register it is loaded to and stored from (-1: neither)."""

    type: TensorType
    storage: Storage
    load: int
    store: int

    @property
    def argument(self) -> Argument:
        access = {(True, False): Access.READ, (False, True): Access.WRITE, (True, True): Access.READ_WRITE}
        return Argument(self.type.dtype, self.type.size, access[self.load >= 0, self.store >= 0])


@dataclass(frozen=True)
class Step:
    """One op on registers."""

    op: Op
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class ReferenceSpec:
    """A kernel: load operands to registers, apply ops, store. Everything is read before anything is written."""

    operands: tuple[Operand, ...]
    steps: tuple[Step, ...]

    @property
    def stem(self) -> str:
        return "reference_" + "_".join(step.op.name for step in self.steps)

    @property
    def arguments(self) -> tuple[Argument, ...]:
        return tuple(operand.argument for operand in self.operands)

    @property
    def threads(self) -> int:
        return 1

    def execute(self, memory: Sequence[np.ndarray]) -> None:
        """Run on one u8 array per operand, each at least as large as its argument."""
        registers: dict[int, np.ndarray] = {}
        for operand, raw in zip(self.operands, memory, strict=True):
            if operand.load >= 0:
                flat = raw[: operand.type.bytes].copy().view(operand.type.dtype.numpy)
                registers[operand.load] = operand.storage.unpack(flat, operand.type.shape)
        with np.errstate(all="ignore"):
            for step in self.steps:
                results = step.op.reference(*(registers[i] for i in step.inputs))
                registers.update(zip(step.outputs, results, strict=True))
        for operand, raw in zip(self.operands, memory, strict=True):
            if operand.store >= 0:
                flat = operand.storage.pack(np.asarray(registers[operand.store]))
                raw[: operand.type.bytes] = np.ascontiguousarray(flat).view(np.uint8)


@dataclass(frozen=True)
class GuardedReference:
    """A kernel that does nothing unless `words` more arguments are finite."""

    spec: ReferenceSpec
    words: int

    @property
    def stem(self) -> str:
        return self.spec.stem

    @property
    def arguments(self) -> tuple[Argument, ...]:
        return (*self.spec.arguments, *[Argument(DType.F32, 1, Access.READ)] * self.words)

    @property
    def threads(self) -> int:
        return 1

    def execute(self, memory: Sequence[np.ndarray]) -> None:
        if all(np.isfinite(word[:4].copy().view(np.float32)[0]) for word in memory[-self.words :]):
            self.spec.execute(memory[: -self.words])


@dataclass(frozen=True)
class MergedReference:
    """Several kernels, in no order."""

    parts: tuple[Part, ...]
    arguments: tuple[Argument, ...]

    @property
    def stem(self) -> str:
        return f"reference_merged_{len(self.parts)}"

    @property
    def threads(self) -> int:
        return 1

    def execute(self, memory: Sequence[np.ndarray]) -> None:
        for part in reversed(self.parts):
            part.spec.execute([memory[i] for i in part.arguments])


@dataclass
class ReferenceBackend:
    """The backend for one target; `target.lanes` above 1 gives channels-last activations and weights in panels."""

    target: Target = VECTOR_TARGET

    def unsupported(self, node: Node) -> str | None:
        return None

    def fusion(self) -> CanFuse:
        return lambda anchor, follower: follower.op.elementwise

    def attends(self, group: Group) -> bool:
        return self.target.lanes > 1

    def takes_tail(self, group: Group) -> bool:
        return self.target.lanes > 1

    def choose_storage(self, programs: Sequence[Sequence[Group]]) -> dict[str, Storage]:
        leaves = {value for groups in programs for group in groups for value in group.inputs}
        return {v.name: self._leaf_storage(v.type) for v in leaves if v.role in (Role.PARAM, Role.STATE)}

    def _leaf_storage(self, kind: TensorType) -> Storage:
        if self.target.lanes == 1 or kind.rank not in (2, 4):
            return Storage.row_major(kind.shape)
        perm = (2, 3, 1, 0) if kind.rank == 4 else (1, 0)
        return Storage(kind.shape, perm, self.target.lanes)

    def activation_storage(self, values: Iterable[Value]) -> dict[Value, Storage]:
        return {value: self._activation_storage(value) for value in values}

    def _activation_storage(self, value: Value) -> Storage:
        if self.target.lanes > 1 and value.type.rank == 4:
            return Storage.channels_last(value.type.shape)
        return Storage.row_major(value.type.shape)

    def in_place(self, group: Group) -> Sequence[tuple[Value, Value]]:
        """Any output over any input of its type that elementwise nodes alone read."""
        members = set(group.nodes)
        pairs = []
        for operand in group.inputs:
            if all(node.op.elementwise for node, _ in operand.uses if node in members):
                pairs += [(output, operand) for output in group.outputs if output.type == operand.type]
        # The first outputs of a node replace its first operands: parameter, then velocity.
        return sorted(pairs, key=lambda pair: abs(pair[0].index - _slot(group, pair[1])))

    def lower(self, group: Group, storage: Mapping[Value, Storage], alias: Mapping[Value, Value]) -> Lowering:
        anchor = group.anchor
        if anchor.op.elementwise or len(group.nodes) == 1 or len(anchor.outputs) > 1:
            return Lowering((self._call(group.nodes, group.inputs, group.outputs, storage, alias),))
        # Anchor and epilogue apart, with the anchor's result in a workspace: what a split reduction looks like.
        raw = anchor.output
        scratch = Workspace(0, raw.type.bytes)
        inputs = tuple(dict.fromkeys(anchor.inputs))
        first = self._call((anchor,), inputs, (raw,), storage, {}, {raw: scratch})
        rest = group.nodes[1:]
        reads = (raw, *(v for v in group.inputs if any(n in rest for n, _ in v.uses)))
        second = self._call(rest, reads, group.outputs, storage, alias, {raw: scratch})
        return Lowering((first, second), (scratch,))

    def _call(
        self,
        nodes: Sequence[Node],
        inputs: Sequence[Value],
        outputs: Sequence[Value],
        storage: Mapping[Value, Storage],
        alias: Mapping[Value, Value],
        scratch: Mapping[Value, Workspace] | None = None,
    ) -> KernelCall:
        scratch = scratch or {}
        registers: dict[Value, int] = {}
        for value in (*inputs, *(v for node in nodes for v in node.outputs)):
            registers.setdefault(value, len(registers))
        overwritten = {alias[value]: value for value in outputs if value in alias}
        operands: dict[Value | Workspace, Operand] = {}
        for value in inputs:
            if value not in overwritten:
                operands[scratch.get(value, value)] = Operand(value.type, storage[value], registers[value], -1)
        for value in outputs:
            load = registers[alias[value]] if value in alias else -1
            where = value if value in inputs else scratch.get(value, value)
            operands[where] = Operand(value.type, storage[value], load, registers[value])
        steps = tuple(
            Step(n.op, tuple(registers[v] for v in n.inputs), tuple(registers[v] for v in n.outputs)) for n in nodes
        )
        macs = sum(n.cost.macs for n in nodes)
        spec = ReferenceSpec(tuple(operands.values()), steps)
        return KernelCall(spec, tuple(operands), 1, macs, " ".join(n.source for n in nodes if n.source))

    def guarded(self, spec: KernelSpec, words: int) -> KernelSpec | None:
        return GuardedReference(spec, words) if self.target.arch.is_device else None

    def merge_key(self, spec: KernelSpec, tasks: int) -> Hashable:
        return "any" if self.target.arch.is_device else None

    def merged(self, parts: Sequence[Part], arguments: Sequence[Argument]) -> KernelSpec | None:
        return MergedReference(tuple(parts), tuple(arguments)) if len(arguments) <= MAX_DEVICE_ARGS else None

    def build(self, specs: Sequence[KernelSpec], *, progress: Progress | None = None) -> CodeImage:
        distinct = list(dict.fromkeys(specs))
        if progress is not None:
            progress(len(distinct), len(distinct))
        entries = {spec: index for index, spec in enumerate(distinct)}
        return CodeImage("reference", b"", entries, {s: f"edgec_{s.stem}__{i:08x}"[-200:] for s, i in entries.items()})


def _slot(group: Group, value: Value) -> int:
    return min(slot for node, slot in value.uses if node in group.nodes)
