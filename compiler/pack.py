"""`pack_artifact`: planned programs and code images become the records of one artifact.

Tensors are shared by all targets; the file stores each as the first target lays it out. What a program updates has a
private copy in PARAM or STATE; what is frozen is used straight from the file where the layouts agree.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from edgec.backends.base import CodeImage, KernelSpec
from edgec.compiler.memory.check import check_placements
from edgec.compiler.memory.lifetimes import aligned
from edgec.compiler.originals import find_originals
from edgec.compiler.passes.mask_classes import live_classes
from edgec.compiler.schedule import Schedule, TargetSchedules, same_order
from edgec.graph.errors import InternalError
from edgec.graph.ir import Module, Role, Value
from edgec.graph.text import print_module
from edgec.runtime.abi import Storage
from edgec.runtime.format import (
    Artifact,
    Binding,
    Buffer,
    Call,
    Kernel,
    KernelArgument,
    Opcode,
    Placement,
    Program,
    Region,
    Slot,
    Tensor,
    TensorKind,
    Variant,
)

_KINDS = {Role.PARAM: TensorKind.PARAM, Role.STATE: TensorKind.STATE, Role.CONSTANT: TensorKind.CONSTANT}
_MAX_LABEL = 255  # bytes of UTF-8


def pack_artifact(
    module: Module,
    targets: Sequence[tuple[TargetSchedules, CodeImage]],
    manifest: dict,
    originals: Literal["keep", "drop"] = "keep",
) -> Artifact:
    """All targets in one artifact; `module` is what they were all made from."""
    leaves = _leaves(module)
    first = _storages(targets[0][0])
    tensors = tuple(
        Tensor(leaf.name, _KINDS[leaf.role], _data(leaf), first.get(leaf.name, Storage.row_major(leaf.type.shape)))
        for leaf in leaves.values()
    )
    # Pieces that were folded into constants: no program reads them, but the source model's parameter consists of them.
    tensors += tuple(
        Tensor(name, TensorKind.PARAM, data, Storage.row_major(data.shape))
        for parts in module.parts.values()
        for name, data in parts.data.items()
        if name not in leaves
    )
    updated = module.updated_names()
    variants = tuple(_Packer(schedules, image, tensors, updated).variant() for schedules, image in targets)
    for variant in variants:
        check_placements(variant, tensors)
    completed = find_originals(module, tensors) if originals == "keep" else ()
    return Artifact(fingerprint(module), tensors, variants, manifest, completed)


def fingerprint(module: Module) -> bytes:
    """16 bytes that tell graph, update scheme, optimizer and initial weights; the same for every target."""
    return hashlib.sha256(print_module(module).encode()).digest()[:16]


def _leaves(module: Module) -> dict[str, Value]:
    leaves: dict[str, Value] = {}
    for graph in module.programs.values():
        for leaf in graph.leaves.values():
            if leaf.role in _KINDS:
                leaves.setdefault(leaf.name, leaf)
    return leaves


def _data(leaf: Value) -> np.ndarray:
    if leaf.data is None:
        raise InternalError(f"{leaf} has no initial value")
    return leaf.data


def _storages(schedules: TargetSchedules) -> dict[str, Storage]:
    return {
        leaf.name: schedule.storage[leaf]
        for schedule in schedules.programs.values()
        for leaf in schedule.graph.leaves.values()
        if leaf.role in _KINDS
    }


@dataclass
class _Table:
    """Records by number; equal ones are one record."""

    rows: dict[Buffer, int] = field(default_factory=dict)

    def add(self, row: Buffer) -> int:
        return self.rows.setdefault(row, len(self.rows))


class _Packer:
    """One target."""

    def __init__(self, schedules: TargetSchedules, image: CodeImage, tensors: Sequence[Tensor], updated: Iterable[str]):
        self.schedules = schedules
        self.target = schedules.backend.target
        self.image = image
        self.tensors = {tensor.name: (index, tensor) for index, tensor in enumerate(tensors)}
        self.sizes = {Region.PARAM: 0, Region.STATE: 0}
        storages = _storages(schedules)
        self.placements = [self._place(i, t, storages, t.name in set(updated)) for i, t in enumerate(tensors)]
        self.kernels = self._kernels()
        self.buffers = _Table()

    def variant(self) -> Variant:
        target = self.target
        programs = tuple(self._program(schedule) for schedule in self.schedules.programs.values())
        return Variant(
            target=target.name,
            arch=target.arch,
            features=target.features,
            placements=tuple(self.placements),
            buffers=tuple(self.buffers.rows),
            kernels=tuple(self._kernel(spec) for spec in self.kernels),
            programs=programs,
            code=self.image.data,
            param_bytes=self.sizes[Region.PARAM],
            state_bytes=self.sizes[Region.STATE],
            capability=target.capability,
        )

    def _place(self, index: int, tensor: Tensor, storages: Mapping[str, Storage], trained: bool) -> Placement:
        storage = storages.get(tensor.name, tensor.storage)
        if tensor.kind is TensorKind.STATE:
            region = Region.STATE
        elif trained or self.target.arch.is_device or not same_order(storage, tensor.storage):
            region = Region.PARAM  # a device has no view of the file
        else:
            return Placement(index, Region.WEIGHTS, 0, tensor.storage)
        offset = self.sizes[region]
        self.sizes[region] += aligned(tensor.data.nbytes)
        return Placement(index, region, offset, storage, trained)

    def _kernels(self) -> dict[KernelSpec, int]:
        numbers: dict[KernelSpec, int] = {}
        for spec in kernel_specs(self.schedules):
            numbers.setdefault(spec, len(numbers))
        return numbers

    def _kernel(self, spec: KernelSpec) -> Kernel:
        arguments = tuple(KernelArgument(argument.bytes, argument.access) for argument in spec.arguments)
        threads = spec.threads if self.target.arch.is_device else 0
        image = self.image
        return Kernel(image.names[spec], image.entries[spec], arguments, threads, image.products.get(spec))

    def _program(self, schedule: Schedule) -> Program:
        calls: list[Call] = []
        for launch in schedule.launches:
            operands = tuple(self._operand(schedule, operand) for operand in launch.operands)
            label = _shortened(launch.label)
            calls.append(Call(Opcode.KERNEL, self.kernels[launch.spec], operands, launch.tasks, launch.macs, label))
        if schedule.stop is not None:
            calls[schedule.stop : schedule.stop] = self._guards(schedule)
        return Program(schedule.graph.name, schedule.plan.arena_bytes, tuple(calls), self._bindings(schedule))

    def _guards(self, schedule: Schedule) -> list[Call]:
        graph = schedule.graph
        watched = ((Opcode.GUARD, graph.loss), (Opcode.GUARD_GRADIENTS, graph.guard))
        return [
            Call(opcode, 0, (self._buffer(schedule, graph.outputs[name]),), 0, label="guard")
            for opcode, name in watched
            if name is not None
        ]

    def _operand(self, schedule: Schedule, operand: Value | tuple[int, int]) -> int:
        if isinstance(operand, Value):
            return self._buffer(schedule, operand)
        span = schedule.plan.workspaces[operand]
        return self.buffers.add(Buffer(Region.ARENA, span.offset, span.bytes))

    def _buffer(self, schedule: Schedule, value: Value) -> int:
        home = schedule.home(value)
        if schedule.in_arena(home):
            start = schedule.plan.values[home].offset + schedule.offset(value)
            return self.buffers.add(Buffer(Region.ARENA, start, value.type.bytes))
        index, tensor = self.tensors[home.name]
        placement = self.placements[index]
        if placement.region is Region.WEIGHTS:
            return self.buffers.add(Buffer(Region.WEIGHTS, 0, tensor.data.nbytes, index))
        return self.buffers.add(Buffer(placement.region, placement.offset, tensor.data.nbytes))

    def _bindings(self, schedule: Schedule) -> tuple[Binding, ...]:
        graph, bindings = schedule.graph, []
        limit = live_classes(graph)
        for leaf in (*graph.by_role(Role.INPUT), *graph.by_role(Role.SCALAR)):
            slot = Slot.INPUT if leaf.role is Role.INPUT else Slot.SCALAR
            binding = self._binding(schedule, leaf.name, slot, leaf)
            if leaf.bounds is not None:
                bounds = leaf.bounds
                below = limit.name if limit is not None and slot is Slot.INPUT else None
                binding = replace(binding, low=bounds.low, high=bounds.high, ignored=bounds.ignored, below=below)
            bindings.append(binding)
        for name, value in graph.outputs.items():
            binding = self._binding(schedule, name, Slot.LOSS if name == graph.loss else Slot.OUTPUT, value)
            if name in graph.counts:
                binding = replace(binding, count=graph.counts[name].name, count_axis=graph.counts[name].axis)
            bindings.append(binding)
        return tuple(bindings)

    def _binding(self, schedule: Schedule, name: str, slot: Slot, value: Value) -> Binding:
        buffer = self._buffer(schedule, value)
        return Binding(name, slot, value.type.dtype.value, value.type.shape, buffer)


def kernel_specs(schedules: TargetSchedules) -> list[KernelSpec]:
    """The specs of all launches of all programs, in order, with repetitions."""
    return [launch.spec for schedule in schedules.programs.values() for launch in schedule.launches]


def _shortened(label: str) -> str:
    """At most 255 bytes, cut between characters."""
    raw = label.encode()
    return label if len(raw) <= _MAX_LABEL else raw[: _MAX_LABEL - 3].decode(errors="ignore") + "..."
