"""Programs in another precision: double, where no rounding moves an activation across a kink, and back to single."""

from __future__ import annotations

from collections.abc import Mapping

from edgec.graph.ir import Module
from edgec.graph.retype import retyped
from edgec.graph.types import DType


def widened(module: Module) -> Module:
    """A copy in which every f32 leaf is f64, and with them all that is computed; also by passes that run later.

    Interpreting an f32 program in float64 is not the same: constants that a pass computes are still rounded to f32.
    """
    return _retyped(module, {DType.F32: DType.F64})


def narrowed(module: Module) -> Module:
    """A copy in which every f64 leaf is f32, and with them all that is computed."""
    return _retyped(module, {DType.F64: DType.F32})


def _retyped(module: Module, types: Mapping[DType, DType]) -> Module:
    return Module({name: retyped(graph, types) for name, graph in module.programs.items()})
