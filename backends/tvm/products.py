"""From a product's operands to its kernel call: what the strategies for matmul and convolutions share. Loads no
tvm.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from edgec.backends.base import Group, KernelCall, KernelSpec, Lowering, Target, Workspace
from edgec.backends.tvm.computation import label
from edgec.backends.tvm.epilogue import Accumulator, BoundEpilogue, bind_epilogue
from edgec.backends.tvm.gemm import GemmReduceSpec, GemmSpec, Panels, Patches, Placement, Table
from edgec.backends.tvm.tiling import even_split, reduce_block, reduce_tasks, row_tasks, tile_rows
from edgec.backends.tvm.tuning.choice import MODEL, Chooser
from edgec.backends.tvm.tuning.products import ProductProblem, ProductTiles
from edgec.backends.tvm.tuning.sums import SumProblem
from edgec.graph.ir import Value
from edgec.graph.ops.compress import Compress
from edgec.graph.types import DType
from edgec.runtime.abi import Storage

Operand = Value | Workspace


@dataclass
class Request:
    """One group to lower, and the calls and workspaces collected so far."""

    group: Group
    storage: Mapping[Value, Storage]
    alias: Mapping[Value, Value]
    target: Target
    tuning: Chooser = MODEL
    calls: list[KernelCall] = field(default_factory=list)
    workspaces: list[Workspace] = field(default_factory=list)

    def epilogue(self, view: Storage | None = None, apart: Collection[Value] = ()) -> BoundEpilogue | None:
        """The group's epilogue, or None if it has no simple pattern, or something but a compressed result is not f32;
        `view` as it takes it.

        Values `apart` are operands and results of the anchor that its kernel reads and writes by itself.
        """
        outputs = tuple(value for value in self.group.outputs if value not in apart)
        plain = [v for v in outputs if not isinstance(v.producer.op, Compress)]
        if any(v.type.dtype is not DType.F32 for v in (*self.group.inputs, *plain) if v not in apart):
            return None
        group = dataclasses.replace(self.group, outputs=outputs)
        return bind_epilogue(group, {self.group.anchor.outputs[0]: Accumulator()}, self.storage, self.alias, view)

    def workspace(self, elements: int) -> Workspace:
        made = Workspace(len(self.workspaces), 4 * elements)
        self.workspaces.append(made)
        return made

    def call(self, spec: KernelSpec, operands: tuple[Operand, ...], tasks: int, macs: int = 0) -> None:
        self.calls.append(KernelCall(spec, operands, tasks, macs, label(self.group)))

    def lowering(self) -> Lowering:
        return Lowering(tuple(self.calls), tuple(self.workspaces))


def choose_tiles(
    request: Request, patches: Patches, columns: int, bound: BoundEpilogue, batch: int = 1, width: int = 0
) -> ProductTiles:
    """The tiles of a product. `width`: of the panels in which its right matrix lies; 0 if it may have any."""
    epilogue = bound.epilogue
    problem = ProductProblem(
        patches.lines,
        patches.rows[2].count,
        patches.depth_count,
        columns,
        batch,
        width,
        len(epilogue.steps),
        len(epilogue.arguments),
    )
    return request.tuning.choose(problem, request.target)


def add_product(
    request: Request,
    role: str,
    left: tuple[Patches, Operand],
    right: tuple[Panels | Table, Operand],
    output: Placement,
    bound: BoundEpilogue,
    batch: int = 1,
    tiles: ProductTiles | None = None,
) -> None:
    """A `GemmSpec`. `tiles`, as of `choose_tiles`, where the right matrix was laid out for them."""
    (patches, left_operand), (matrix, right_operand) = left, right
    width, tail = matrix.width, matrix.columns % matrix.width
    tiles = tiles or choose_tiles(request, patches, matrix.columns, bound, batch, width)
    rows = tiles.rows
    tail_rows = tile_rows(tail, request.target) if tail else rows
    _, taller, shorter = even_split(patches.rows[2].count, rows)
    panels = -(-matrix.columns // width)
    macs = patches.row_count * matrix.depth * matrix.columns * batch
    units = patches.lines if patches.lines > 1 else taller + shorter
    blocks, groups = row_tasks(patches.row_count, units, panels, macs, batch, tiles.block_rows)
    spec = GemmSpec(role, patches, matrix, output, bound.epilogue, rows, tail_rows, blocks, groups, batch)
    request.call(spec, (left_operand, right_operand, *bound.operands), spec.tasks, macs)


def add_reduction(
    request: Request,
    role: str,
    left: tuple[Patches, Operand],
    columns: int,
    width: int,
    right: tuple[int, tuple[int, int, int], Operand],
    bound: BoundEpilogue,
    row_major: bool = False,
) -> None:
    """A `GemmReduceSpec`. `right`: elements, strides along (image, y, x), operand."""
    patches, left_operand = left
    elements, strides, right_operand = right
    tail = columns % width
    taps = patches.depth[0].count * patches.depth[1].count
    problem = SumProblem(
        patches.lines,
        patches.rows[2].count,
        taps,
        patches.depth[2].count,
        columns,
        width,
        len(bound.epilogue.steps),
        len(bound.epilogue.arguments),
    )
    tiles = request.tuning.choose(problem, request.target)
    rows = tiles.rows
    tail_rows = tile_rows(tail, request.target) if tail else rows
    _, taller, shorter = even_split(patches.depth[2].count, rows)
    macs = patches.row_count * patches.depth_count * columns
    depths, groups = reduce_tasks(taps if taps > 1 else taller + shorter, -(-columns // width), macs)
    block = reduce_block(patches.lines, patches.rows[2].count, tiles.block_rows)
    spec = GemmReduceSpec(
        role,
        patches,
        columns,
        width,
        elements,
        strides,
        bound.epilogue,
        rows,
        tail_rows,
        block,
        depths,
        groups,
        row_major,
    )
    operands = (left_operand, right_operand, *bound.operands)
    if spec.needs_partial:
        operands = (*operands, request.workspace(patches.depth_count * columns))
    request.call(spec, operands, spec.tasks, macs)
