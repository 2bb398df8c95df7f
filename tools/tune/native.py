"""Compiled kernels in this process, without an artifact: an image of code mapped executable, called by address, on
made-up operands.
"""

from __future__ import annotations

import ctypes
import mmap
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from edgec.backends.base import CodeImage, KernelSpec, Lowering, Workspace
from edgec.graph.ir import Value


class NativeCode:
    """The functions of an image for this machine: `function(spec)(pointers..., lo, hi)`.

    They may be called as long as the object lives.
    """

    def __init__(self, image: CodeImage):
        with tempfile.TemporaryFile() as file:
            file.write(image.data)
            file.flush()
            # Never writable and executable at one time: hardened systems refuse that.
            self._mapping = mmap.mmap(file.fileno(), len(image.data), prot=mmap.PROT_READ | mmap.PROT_EXEC)
        self._base = np.frombuffer(self._mapping, np.uint8).ctypes.data
        self._entries = image.entries

    def function(self, spec: KernelSpec) -> Callable[..., None]:
        return ctypes.CFUNCTYPE(None)(self._base + self._entries[spec])


Call = tuple[Any, list[Any]]  # a kernel's spec, pointers and tasks


def runner(code: NativeCode, bound: Sequence[tuple[Memory, Lowering]]) -> Callable[[], None]:
    """A function that runs all the calls, every task of each. It keeps what they need."""
    calls = [
        (code.function(spec), arguments) for memory, lowering in bound for spec, arguments in memory.bind(lowering)
    ]
    kept = (code, bound)

    def run() -> None:
        assert kept
        for function, arguments in calls:
            function(*arguments)

    return run


class Memory:
    """What the calls of a group read and write: small numbers, which neither overflow nor become subnormal."""

    def __init__(self, alias: Mapping[Value, Value]):
        self._alias = alias
        self._arrays: dict[Any, np.ndarray] = {}

    def bind(self, lowering: Lowering) -> list[Call]:
        """Pointers for every call; the arrays live as long as this."""
        bound = []
        for call in lowering.calls:
            pointers = [
                ctypes.c_void_p(self._array(operand, argument.bytes, argument.dtype.numpy).ctypes.data)
                for operand, argument in zip(call.operands, call.spec.arguments, strict=True)
            ]
            bound.append((call.spec, [*pointers, ctypes.c_int32(0), ctypes.c_int32(call.tasks)]))
        return bound

    def _array(self, operand: Value | Workspace, size: int, dtype: np.dtype) -> np.ndarray:
        if isinstance(operand, Workspace):
            key, size = ("workspace", operand.index, operand.bytes), operand.bytes
        else:
            key = self._alias.get(operand, operand)
        if key not in self._arrays:
            raw = np.zeros(size + 64, np.uint8)
            start = -raw.ctypes.data % 64
            array = self._arrays[key] = raw[start : start + size]
            if np.dtype(dtype).kind == "f" and size % np.dtype(dtype).itemsize == 0:
                values = array.view(dtype)
                values[:] = np.resize(np.random.default_rng(0).uniform(-0.1, 0.1, 4099).astype(dtype), values.size)
        return self._arrays[key]
