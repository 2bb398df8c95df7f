"""Code of the kernels for devices: a result for each work item, or for each work group."""

from __future__ import annotations

from edgec.backends.base import Target
from edgec.backends.tvm._tvm import Expr, T
from edgec.backends.tvm.builder import DeviceKernel, Pointer, bind
from edgec.backends.tvm.generic.kernel_code import emit_row
from edgec.backends.tvm.generic.loops_code import Team, where, working_as
from edgec.backends.tvm.gpu.kernels import ItemSpec, TeamSpec


def emit_item(spec: ItemSpec, target: Target) -> DeviceKernel:
    if not spec.rows:
        return _nothing(spec)

    def body(*parameters: Pointer | Expr) -> None:
        *pointers, group, item = parameters
        row = bind(group * spec.threads + item)
        with where([row < spec.rows] if spec.rows % spec.threads else []):
            emit_row(spec.computation, spec.row_axes, pointers, row)

    return DeviceKernel(spec.arguments, spec.groups, spec.threads, body)


def emit_team(spec: TeamSpec, target: Target) -> DeviceKernel:
    if not spec.rows:
        return _nothing(spec)

    def body(*parameters: Pointer | Expr) -> None:
        *pointers, group, item = parameters
        with working_as(Team(item, spec.threads)):
            emit_row(spec.computation, spec.row_axes, pointers, group)

    return DeviceKernel(spec.arguments, spec.groups, spec.threads, body)


def _nothing(spec: ItemSpec | TeamSpec) -> DeviceKernel:
    """For a result without elements, whose index cannot even be written down; it is never launched."""
    return DeviceKernel(spec.arguments, 1, spec.threads, lambda *_: T.evaluate(0))
