"""Specs and emitter for testing vector math: y[i] = function(x[i]), one vector a task."""

from __future__ import annotations

from dataclasses import dataclass

from edgec.backends.base import Argument, Target
from edgec.backends.tvm import functions, trigonometry
from edgec.backends.tvm._tvm import PrimFunc
from edgec.backends.tvm.builder import build_kernel, serial
from edgec.graph.types import DType
from edgec.runtime.abi import Access


@dataclass(frozen=True)
class FunctionSpec:
    function: str
    elements: int

    @property
    def stem(self) -> str:
        return self.function

    @property
    def arguments(self) -> tuple[Argument, ...]:
        return (Argument(DType.F32, self.elements, Access.READ), Argument(DType.F32, self.elements, Access.WRITE))


def emit(spec: FunctionSpec, target: Target, symbol: str) -> PrimFunc:
    function = getattr(functions, spec.function, None) or getattr(trigonometry, spec.function)

    def body(x, y, lo, hi) -> None:
        with serial(lo, hi) as i:
            y.store(i * target.lanes, function(x.load(i * target.lanes, target.lanes)))

    return build_kernel(spec.arguments, body, symbol)
