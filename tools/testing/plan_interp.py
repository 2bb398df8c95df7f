"""Executes artifacts of the reference backend over plain byte arrays: proves memory plan and packing end to end.

What the C runtime does, in numpy: regions, placements, buffers, calls in order, the guard. The arena is filled with
0xFF bytes (NaN) before each run, so that nothing survives by chance; the file's weights cannot be written.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgec.backends.base import CodeImage
from edgec.graph.types import DType
from edgec.runtime.format import Artifact, Binding, Buffer, Call, Opcode, Program, Region, Slot


class LossNotFinite(Exception):
    """The guard stopped the program; parameters and states are as before."""


class PlanInterpreter:
    """One variant of an artifact, loaded: parameters and states live as long as this object."""

    def __init__(self, artifact: Artifact, image: CodeImage, target: int = 0):
        self.artifact = artifact
        self.variant = artifact.variants[target]
        self.specs = {entry: spec for spec, entry in image.entries.items()}
        arena = max((program.arena_bytes for program in self.variant.programs), default=0)
        self.memory = {
            Region.ARENA: np.full(arena, 0xFF, np.uint8),
            Region.PARAM: np.full(self.variant.param_bytes, 0xFF, np.uint8),
            Region.STATE: np.full(self.variant.state_bytes, 0xFF, np.uint8),
        }
        self.weights: list[np.ndarray] = []
        for tensor, placement in zip(artifact.tensors, self.variant.placements, strict=True):
            in_file = np.ascontiguousarray(tensor.storage.pack(tensor.data)).view(np.uint8)
            in_file.flags.writeable = False
            self.weights.append(in_file)
            if placement.region is not Region.WEIGHTS:
                packed = np.ascontiguousarray(placement.storage.pack(tensor.data)).view(np.uint8)
                self.memory[placement.region][placement.offset : placement.offset + packed.size] = packed

    def program(self, name: str) -> Program:
        (program,) = [p for p in self.variant.programs if p.name == name]
        return program

    def run(self, name: str, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run a program once; `feeds` has every input and scalar. LossNotFinite where the guard stops it."""
        program = self.program(name)
        self.memory[Region.ARENA][:] = 0xFF
        for binding in program.bindings:
            if binding.slot in (Slot.INPUT, Slot.SCALAR):
                array = np.array(feeds[binding.name], DType(binding.dtype).numpy, order="C")
                if array.shape != binding.shape:
                    raise ValueError(f"{binding.name} has shape {array.shape}, not {binding.shape}")
                if binding.low <= binding.high and (array.min() < binding.low or array.max() > binding.high):
                    raise ValueError(f"{binding.name} is not within {binding.low}..{binding.high}")
                self._bytes(binding.buffer)[: array.nbytes] = array.reshape(-1).view(np.uint8)
        for call in program.calls:
            self._execute(call)
        return {b.name: self._read(b) for b in program.bindings if b.slot in (Slot.OUTPUT, Slot.LOSS)}

    def tensor(self, name: str) -> np.ndarray:
        """The logical array of a parameter, state or constant as it is now."""
        (index,) = [i for i, tensor in enumerate(self.artifact.tensors) if tensor.name == name]
        tensor, placement = self.artifact.tensors[index], self.variant.placements[index]
        raw = self.weights[index]
        if placement.region is not Region.WEIGHTS:
            raw = self.memory[placement.region][placement.offset :][: tensor.data.nbytes]
        return placement.storage.unpack(raw.copy().view(tensor.data.dtype), tensor.data.shape)

    def _execute(self, call: Call) -> None:
        memory = [self._bytes(index) for index in call.operands]
        if call.opcode is Opcode.KERNEL:
            self.specs[self.variant.kernels[call.kernel].entry].execute(memory)
        elif call.opcode is Opcode.ZERO:
            memory[0][:] = 0
        elif not np.isfinite(memory[0][:4].copy().view(np.float32)[0]):
            raise LossNotFinite

    def _bytes(self, index: int) -> np.ndarray:
        buffer: Buffer = self.variant.buffers[index]
        region = self.weights[buffer.tensor] if buffer.region is Region.WEIGHTS else self.memory[buffer.region]
        return region[buffer.offset : buffer.offset + buffer.bytes]

    def _read(self, binding: Binding) -> np.ndarray:
        dtype = DType(binding.dtype).numpy
        count = int(np.prod(binding.shape, dtype=np.int64)) * dtype.itemsize
        return self._bytes(binding.buffer)[:count].copy().view(dtype).reshape(binding.shape)
