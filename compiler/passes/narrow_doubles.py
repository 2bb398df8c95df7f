"""Pass `narrow_doubles`: what a program makes of other types in double precision it makes in single.

No kernel computes in f64. Exporters leave doubles where a Python number met a table; constants are folded in double
precision before they are rounded. A program that is fed doubles stays as it is, and is refused: whoever does that means
it. Casts between the two, which do nothing any more, go when the graph is brought into canonical form.
"""

from __future__ import annotations

from edgec.compiler.passbase import Options
from edgec.graph.ir import Module, Role
from edgec.graph.retype import retyped
from edgec.graph.types import DType


def narrow_doubles(module: Module, options: Options) -> bool:
    changed = False
    for name, graph in module.programs.items():
        doubles = [value for value in graph.values() if value.type.dtype is DType.F64]
        if doubles and not any(value.role in (Role.INPUT, Role.SCALAR, Role.STATE) for value in doubles):
            module.programs[name] = retyped(graph, {DType.F64: DType.F32})
            changed = True
    return changed
