"""Products of few rows with a weight whose rows run along memory: sums of vectors, whose lanes are added at the end.

The gradient of a dense layer's input reads the weight that the forward product has in panels the other way round.
Transposing it first pays for itself over many rows only, and needs memory for all of it. Loads no tvm.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgec.backends.base import Argument, Target
from edgec.backends.tvm.epilogue import Epilogue
from edgec.graph.types import DType
from edgec.runtime.abi import Access

_LEAST_VECTORS = 8  # of the depth: adding the lanes of fewer would cost more than their products
_TASK_MACS = 1 << 19
_MOST_TASKS = 64


@dataclass(frozen=True)
class DotSpec:
    """output[row, column] = epilogue(sum over depth of left[row, depth] * right[column, depth]), all row-major but
    right: [panels of depth][columns][width], the last panel perhaps narrower.

    A register tile has at most `tile_rows` rows by `tile_columns` columns. Arguments: left, right, those of the
    epilogue. Tasks share the columns.
    """

    rows: int
    depth: int
    columns: int
    width: int
    epilogue: Epilogue
    tile_rows: int
    tile_columns: int
    tasks: int

    @property
    def stem(self) -> str:
        return f"f32_matmul_dots{self.epilogue.label}"

    @property
    def arguments(self) -> tuple[Argument, ...]:
        return (
            Argument(DType.F32, self.rows * self.depth, Access.READ),
            Argument(DType.F32, self.columns * self.depth, Access.READ),
            *self.epilogue.arguments,
        )


def may_use_dots(depth: int, width: int, target: Target) -> bool:
    """Whether a weight whose depth runs along memory in panels of `width`, 0 if it does not, has vectors to add."""
    return depth >= _LEAST_VECTORS * target.lanes and width >= target.lanes


def dot_spec(rows: int, depth: int, columns: int, width: int, epilogue: Epilogue, target: Target) -> DotSpec:
    tile_columns = 3 if target.registers >= 32 else 2
    tile_rows = (target.registers - tile_columns - 1) // tile_columns
    tasks = max(1, min(_MOST_TASKS, rows * depth * columns // _TASK_MACS, columns // tile_columns))
    return DotSpec(rows, depth, columns, width, epilogue, tile_rows, tile_columns, tasks)
