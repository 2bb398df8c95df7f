"""Attention, softmax(q k^T) v, and its gradient, for a block of rows at a time: the matrix of scores never exists.

After Dao, "FlashAttention-2" (2023), but with whole rows of scores, which a cache holds. Loads no tvm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgec.backends.base import Argument, Group, Lowering, Target, Workspace
from edgec.backends.tvm.epilogue import Accumulator, BoundEpilogue, Epilogue, bind_epilogue, same_order
from edgec.backends.tvm.gemm import UNIT, Axis, GemmReduceSpec, GemmSpec, Panels, Patches, Placement, Table
from edgec.backends.tvm.maps import transposition
from edgec.backends.tvm.products import Operand, Request
from edgec.backends.tvm.repack import TransposeSpec
from edgec.backends.tvm.tiling import even_split, panel_width, tile_rows
from edgec.graph.attention import Attention, AttentionGradient, Weights, attention_of, gradient_of
from edgec.graph.ir import Node, Value
from edgec.graph.ops.softmax import Softmax
from edgec.graph.types import DType
from edgec.runtime.abi import MAX_KERNEL_ARGS, Access, Storage

_MOST_TASKS = 16
_TASK_MACS = 1 << 19
_BLOCK_BYTES = 1 << 17  # of scores: with rows of q and panels of k and v, they stay in a second-level cache
_LARGEST_TILE = 1 << 20  # of the scores of one register tile's rows
_IN_CACHE = 1 << 19  # bytes of all scores that stay in a second-level cache anyway
_CONFLICT, _PADDING = 256, 16  # elements
_INDICES = 1 << 31
_NOTHING = Epilogue((), (), ())
_READ = (DType.F32, DType.BOOL)


@dataclass(frozen=True)
class Shape:
    """q[batch, rows, depth], k[batch, keys, depth], v[batch, keys, columns].

    Rows go by `blocks` of nearly equal size; rows of scores are `stride` elements apart.
    """

    batch: int
    rows: int
    keys: int
    depth: int
    columns: int
    blocks: int
    stride: int

    @property
    def split(self) -> tuple[int, int, int]:
        """Rows of a block, how many blocks have so many, and how many one row less."""
        return even_split(self.rows, -(-self.rows // self.blocks))

    @property
    def window(self) -> int:
        """Elements of the scores of the largest block."""
        return self.split[0] * self.stride


@dataclass(frozen=True)
class AttentionSpec:
    """out[batch, rows, columns] = after(softmax(before(q k^T))) v.

    Arguments: q, k^T [batch, depth, keys], v, those that `before` and `after` read, out, and for each task a window of
    scores. Tasks share blocks of rows.

    Epilogues see scores as a matrix [batch * rows, keys]; they store to the last of their arguments, which is the
    window.
    """

    shape: Shape
    k: Panels | Table
    before: Epilogue
    after: Epilogue
    tasks: int

    @property
    def stem(self) -> str:
        return f"f32_attention{self.before.label}{self.after.label}"

    @property
    def arguments(self) -> tuple[Argument, ...]:
        shape = self.shape
        return (
            _read(shape.batch * shape.rows * shape.depth),
            _read(shape.batch * shape.keys * shape.depth),
            _read(shape.batch * shape.keys * shape.columns),
            *self.before.arguments[:-1],
            *self.after.arguments[:-1],
            Argument(DType.F32, shape.batch * shape.rows * shape.columns, Access.WRITE),
            Argument(DType.F32, self.tasks * shape.window, Access.READ_WRITE),
        )


@dataclass(frozen=True)
class AttentionGradientSpec:
    """The gradients of q, k and v that are wanted, from dy[batch, rows, columns]. `before` and `after` are those of
    `AttentionSpec`, `slopes_after` and `slopes_before` lead back through them: slopes = slopes_before(y * (s - sum(s *
    y))) with y = softmax(before(q k^T)) and s = slopes_after(dy v^T); dq = slopes k, dk = slopes^T q, dv = after(y)^T
    dy.

    Arguments: q, k^T, then dy; v^T if slopes are wanted and k if dq is; those that the epilogues read; dq, dk, dv; for
    each task a window of weights and one of slopes. dk is transposed, [batch, depth, keys], where k was given so.
    Tasks share the batch.
    """

    shape: Shape
    k: Panels | Table
    v: Panels | Table
    before: Epilogue
    after: Epilogue
    slopes_after: Epilogue
    slopes_before: Epilogue
    dq: bool
    dk: bool
    dv: bool
    transposed: bool
    tasks: int

    @property
    def stem(self) -> str:
        return f"f32_attention_grad{self.before.label}{self.after.label}"

    @property
    def has_slopes(self) -> bool:
        return self.dq or self.dk

    @property
    def epilogues(self) -> tuple[Epilogue, ...]:
        return self.before, self.after, self.slopes_after, self.slopes_before

    @property
    def arguments(self) -> tuple[Argument, ...]:
        shape = self.shape
        q, k = shape.batch * shape.rows * shape.depth, shape.batch * shape.keys * shape.depth
        dy, v = shape.batch * shape.rows * shape.columns, shape.batch * shape.keys * shape.columns
        read = (q, k, dy, *([v] if self.has_slopes else []), *([k] if self.dq else []))
        written = ((self.dq, q), (self.dk, k), (self.dv, v))
        window = Argument(DType.F32, self.tasks * shape.window, Access.READ_WRITE)
        return (
            *map(_read, read),
            *(argument for epilogue in self.epilogues for argument in epilogue.arguments[:-1]),
            *(Argument(DType.F32, size, Access.WRITE) for is_wanted, size in written if is_wanted),
            *([window] * (1 + self.has_slopes)),
        )


def _read(elements: int) -> Argument:
    return Argument(DType.F32, elements, Access.READ)


def scores_spec(shape: Shape, rows: int, right: Panels | Table, epilogue: Epilogue, target: Target) -> GemmSpec:
    """left[rows, depth] right[depth, keys] for some rows, the first of which is the index of the batch; the epilogue
    stores to a window.
    """
    left = Patches.matrix(rows, right.depth, batch=1, batch_stride=right.depth)
    return _product(left, right, shape.stride, epilogue, target)


def product_spec(shape: Shape, rows: int, columns: int, target: Target) -> GemmSpec:
    """scores[rows, keys] right[keys, columns], likewise."""
    depth = (UNIT, UNIT, Axis(shape.keys, 1))
    left = Patches(0, (UNIT, UNIT, Axis(rows, shape.stride)), depth, 0, shape.stride)
    right = Table(shape.keys, columns, panel_width(columns, target), columns, 0)
    size = shape.batch * shape.rows * columns
    stored = Epilogue.store_only(Argument(DType.F32, size, Access.WRITE))
    return _product(left, right, columns, stored, target)


def _product(left: Patches, right: Panels | Table, stride: int, epilogue: Epilogue, target: Target) -> GemmSpec:
    output, heights = Placement(stride, (0, 0, 1), batch_rows=1), _heights(right.columns, right.width, target)
    return GemmSpec("", left, right, output, epilogue, *heights, 1, 1)


def _heights(columns: int, width: int, target: Target) -> tuple[int, int]:
    """Rows of a register tile, and of one of the last panel."""
    tail = columns % width
    return tile_rows(width, target), tile_rows(tail or width, target)


def sum_spec(rows: int, left: Axis, right: Axis, target: Target) -> GemmReduceSpec:
    """a[rows, left]^T b[rows, right]; each has its columns, and a stride from row to row."""
    patches = Patches(0, (UNIT, UNIT, Axis(rows, left.stride)), (UNIT, UNIT, Axis(left.count, 1)))
    width = panel_width(right.count, target)
    stored = Epilogue.store_only(Argument(DType.F32, 0, Access.WRITE))  # all is near: no size says otherwise
    heights = _heights(right.count, width, target)
    return GemmReduceSpec("", patches, right.count, width, 0, (0, 0, right.stride), stored, *heights, rows, 1, 1, True)


def lower_attention(request: Request) -> Lowering | None:
    """A group of `Backend.attends`; None where something does not lie row-major, or has no kernel."""
    part = part_of(request.group)
    if part is None:
        return None
    lowering = _attention(request, part) if isinstance(part, Attention) else _gradient(request, part)
    too_many = lowering is not None and any(len(call.operands) > MAX_KERNEL_ARGS for call in lowering.calls)
    return None if too_many else lowering


def part_of(group: Group) -> Attention | AttentionGradient | None:
    """The attention, or the gradient of one, that a group is all of."""
    for node in group.nodes:
        if isinstance(node.op, Softmax):
            found = attention_of(node, group.nodes) or gradient_of(node)
            return found if found is not None and set(found.nodes) == set(group.nodes) else None
    return None


def pays(group: Group) -> bool:
    """Whether the matrix of scores is better not made: it costs memory, and time where it leaves the caches."""
    (softmax,) = (node for node in group.nodes if isinstance(node.op, Softmax))
    return softmax.output.type.bytes > _IN_CACHE


def _attention(request: Request, part: Attention) -> Lowering | None:
    weights, v, out = part.weights, part.product.inputs[1], part.product.output
    shape = _shape(request, weights, v)
    before, after = (_chain(request, chain, start) for chain, start in _chains(weights))
    if shape is None or before is None or after is None or not _row_major(request, *weights.scores.inputs, v, out):
        return None
    macs = shape.batch * shape.rows * shape.keys * (shape.depth + shape.columns)
    tasks = max(1, min(_MOST_TASKS, shape.batch * shape.blocks, macs // _TASK_MACS))
    q, k = weights.scores.inputs
    matrix, turned = _turned(request, shape, k) if weights.scores.op.transpose_b else (_table(request, k), k)
    spec = AttentionSpec(shape, matrix, before.epilogue, after.epilogue, tasks)
    window = request.workspace(tasks * shape.window)
    operands = (q, turned, v, *before.operands[:-1], *after.operands[:-1], out, window)
    request.call(spec, operands, tasks, macs)
    return request.lowering()


def _gradient(request: Request, part: AttentionGradient) -> Lowering | None:
    weights, slopes = part.weights, part.slopes
    (q, k), transposed = weights.scores.inputs, not weights.scores.op.transpose_b
    if slopes is not None:
        dy, v = slopes.product.inputs
    else:
        dy, v = part.v.inputs[1], part.v.output  # v itself is not read, and its gradient has its shape
    results = [node.output for node in part.results]
    shape = _shape(request, weights, v)
    chains = [_chain(request, chain, start) for chain, start in _chains(weights)]
    if slopes is not None:
        chains.append(_chain(request, slopes.after, slopes.product.output))
        chains.append(_chain(request, slopes.before, slopes.normal[-1].output))
    read = (q, k, dy) if slopes is None else (q, k, dy, v)
    if shape is None or None in chains or not _row_major(request, *read, *results):
        return None
    tasks = min(_MOST_TASKS, shape.batch)
    epilogues = [chain.epilogue for chain in chains] + [_NOTHING] * (4 - len(chains))
    wanted = [node is not None for node in (part.q, part.k, part.v)]
    k_matrix, turned_k = (_table(request, k), k) if transposed else _turned(request, shape, k)
    v_matrix, turned_v = (k_matrix, None) if slopes is None else _turned(request, shape, v)
    spec = AttentionGradientSpec(shape, k_matrix, v_matrix, *epilogues, *wanted, transposed, tasks)
    operands: list[Operand] = [q, turned_k, dy]
    if spec.has_slopes:
        operands.append(turned_v)
    if spec.dq:
        operands.append(_swapped(request, shape, k) if transposed else k)
    operands += [value for chain in chains for value in chain.operands[:-1]]
    operands += results
    operands += [request.workspace(tasks * shape.window) for _ in range(1 + spec.has_slopes)]
    products = 1 + spec.dq + spec.dk
    values = spec.has_slopes + spec.dv
    macs = shape.batch * shape.rows * shape.keys * (products * shape.depth + values * shape.columns)
    request.call(spec, tuple(operands), tasks, macs)
    return request.lowering()


def _shape(request: Request, weights: Weights, v: Value) -> Shape | None:
    """None where members of the batch share a matrix, or a few rows of scores are too much for a cache."""
    q, k = weights.scores.inputs
    *leading, rows, keys = weights.scores.output.type.shape
    shapes = [value.type.shape for value in (q, k, v)]
    if not leading or any(shape[:-2] != tuple(leading) or 0 in shape for shape in shapes):
        return None
    height, _, _ = even_split(rows, tile_rows(panel_width(keys, request.target), request.target))
    tile_bytes = 4 * height * keys
    if tile_bytes > _LARGEST_TILE:
        return None
    least = -(-rows // (height * max(1, _BLOCK_BYTES // tile_bytes)))
    # Blocks of one size need half the code.
    blocks = next((count for count in range(least, min(2 * least, rows) + 1) if rows % count == 0), least)
    blocks = -(-rows // -(-rows // blocks))  # as many as rows of that size make
    stride, elements = _row_stride(request, keys), (q.type.shape[-1], v.type.shape[-1])
    batch = math.prod(leading)
    return Shape(batch, rows, keys, *elements, blocks, stride) if batch * rows * stride < _INDICES else None


def _row_stride(request: Request, keys: int) -> int:
    """Rows a power of 2 apart would share a few lines of the nearest cache.

    But operands as large as the scores are read where these would stand.
    """
    group = request.group
    scores = group.anchor.output.type.shape
    own = {value for node in group.nodes for value in node.outputs}
    whole = any(value.type.shape == scores for node in group.nodes for value in node.inputs if value not in own)
    return keys if keys % _CONFLICT or whole else keys + _PADDING


def _chains(weights: Weights) -> list[tuple[tuple[Node, ...], Value]]:
    return [(weights.before, weights.scores.output), (weights.after, weights.softmax.output)]


def _chain(request: Request, chain: tuple[Node, ...], start: Value) -> BoundEpilogue | None:
    """Elementwise nodes behind `start`, one of whose result is stored where the matrix of scores would stand."""
    last = chain[-1].output if chain else start
    made = {start, *(node.output for node in chain)}
    values = made.union(*(node.inputs for node in chain))
    if any(value.type.dtype not in _READ for value in values) or last.type.dtype is not DType.F32:
        return None
    view = Storage.row_major(start.type.shape)
    group = Group((start.producer, *chain), outputs=(last,))
    return bind_epilogue(group, {start: Accumulator()}, {**request.storage, last: view}, {}, view)


def _row_major(request: Request, *values: Value) -> bool:
    return all(
        value.type.dtype is DType.F32 and same_order(request.storage[value], Storage.row_major(value.type.shape))
        for value in values
    )


def _table(request: Request, turned: Value) -> Table:
    """Each of a batch of matrices [depth, keys], as it is."""
    depth, keys = turned.type.shape[-2:]
    return Table(depth, keys, panel_width(keys, request.target), keys, 0)


def _turned(request: Request, shape: Shape, matrix: Value) -> tuple[Panels | Table, Workspace]:
    """A batch of matrices [keys, depth] as right matrices [depth, keys]: in panels where all of them are whole."""
    depth, width = matrix.type.shape[-1], panel_width(shape.keys, request.target)
    if shape.keys % width:
        return Table(depth, shape.keys, width, shape.keys, 0), _swapped(request, shape, matrix)
    spec = TransposeSpec(shape.batch * shape.keys, depth, 1, (0,), depth, width)
    packed = request.workspace(matrix.type.size)
    request.call(spec, (matrix, packed), spec.tasks)
    return Panels(depth, shape.keys, width), packed


def _swapped(request: Request, shape: Shape, matrix: Value) -> Workspace:
    """A batch of matrices with rows as columns."""
    copy = transposition(shape.batch, *matrix.type.shape[-2:])
    packed = request.workspace(matrix.type.size)
    request.call(copy, (packed, matrix), copy.tasks)
    return packed
