"""Code of `AttentionSpec` and `AttentionGradientSpec`: the products of `gemm_code` and the softmax of `softmax_code` on
windows of the matrix of scores.

A window is a task's own memory, addressed as if all of the matrix were there: the products need not know.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from edgec.backends.base import Argument, Target
from edgec.backends.tvm._tvm import Expr, PrimFunc
from edgec.backends.tvm.attention import (
    AttentionGradientSpec,
    AttentionSpec,
    Shape,
    product_spec,
    scores_spec,
    sum_spec,
)
from edgec.backends.tvm.builder import (
    Index,
    Pointer,
    bind,
    broadcast,
    build_kernel,
    choose,
    constant,
    fill_value,
    serial,
)
from edgec.backends.tvm.epilogue import Epilogue
from edgec.backends.tvm.epilogue_code import Place, finish
from edgec.backends.tvm.gemm import Axis, GemmSpec, Panels, Table
from edgec.backends.tvm.gemm_code import Gemm
from edgec.backends.tvm.gemm_reduce_code import Edge, Reduce
from edgec.backends.tvm.lanes_code import LaneFold, walk
from edgec.backends.tvm.ranges_code import share
from edgec.backends.tvm.softmax_code import exponentials
from edgec.graph.types import DType
from edgec.runtime.abi import Access

_STORED = Epilogue.store_only(Argument(DType.F32, 1, Access.WRITE))


def emit_attention(spec: AttentionSpec, target: Target) -> PrimFunc:
    shape = spec.shape
    rows, larger, smaller = shape.split

    def body(q: Pointer, k: Pointer, v: Pointer, *rest: Pointer | Expr) -> None:
        *read, out, windows, lo, hi = rest
        given = iter(read)
        before, after = (_operands(epilogue, given) for epilogue in (spec.before, spec.after))

        def compute(task: Index, matrix: Index, first: Index, rows: int) -> None:
            block = _Block(shape, target, matrix, first, rows, lo)
            window = block.window(windows, task)
            block.scores(spec.k, q, k, spec.before, (*before, window))
            block.softmax(window, spec.after, (*after, window))
            block.product(window, v, shape.columns, out)

        with serial(lo, hi) as task, serial(*share(shape.batch * shape.blocks, spec.tasks, task)) as unit:
            # The remainder changes nothing but bounds the offsets.
            matrix, number = unit // shape.blocks % shape.batch, unit % shape.blocks
            choose(
                number < larger if smaller else True,
                lambda: compute(task, matrix, number * rows, rows),
                lambda: compute(task, matrix, number * (rows - 1) + larger, rows - 1),
            )

    return build_kernel(spec.arguments, body)


def emit_attention_gradient(spec: AttentionGradientSpec, target: Target) -> PrimFunc:
    shape = spec.shape
    rows, larger, smaller = shape.split

    def body(q: Pointer, turned_k: Pointer, dy: Pointer, *rest: Pointer | Expr) -> None:
        *pointers, lo, hi = rest
        given = iter(pointers)
        turned_v = next(given) if spec.has_slopes else None
        k = next(given) if spec.dq else None
        before, after, slopes_after, slopes_before = (_operands(epilogue, given) for epilogue in spec.epilogues)
        dq, dk, dv = (next(given) if wanted else None for wanted in (spec.dq, spec.dk, spec.dv))
        windows = list(given)

        def compute(task: Index, matrix: Index, first: Index, rows: int) -> None:
            block = _Block(shape, target, matrix, first, rows, lo)
            weights, *others = (block.window(pointer, task) for pointer in windows)
            block.scores(spec.k, q, turned_k, spec.before, (*before, weights))
            block.softmax(weights, _STORED, (weights,))
            for slopes in others:
                block.scores(spec.v, dy, turned_v, spec.slopes_after, (*slopes_after, slopes))
                block.slopes(weights, slopes, spec.slopes_before, (*slopes_before, slopes))
            if spec.dv and spec.after.steps:
                block.each_vector(weights, spec.after, (*after, weights))
            scores = Axis(shape.keys, shape.stride)
            if spec.dv:
                block.add_rows((weights, scores), (dy, Axis(shape.columns, shape.columns)), dv)
            if spec.dq:
                block.product(slopes, k, shape.depth, dq)
            if spec.dk:
                both = (slopes, scores), (q, Axis(shape.depth, shape.depth))
                block.add_rows(*(both[::-1] if spec.transposed else both), dk)

        with serial(lo, hi) as task, serial(*share(shape.batch, spec.tasks, task)) as member:
            matrix = member % shape.batch
            for out, size in ((dk, shape.keys * shape.depth), (dv, shape.keys * shape.columns)):
                if out is not None and shape.blocks > 1:
                    # Sums that start with 0 or with what is there, as a condition says, do not all stay in registers.
                    _clear(out.at(matrix * size), size, target, lo)
            with serial(0, larger) as number:
                compute(task, matrix, number * rows, rows)
            if smaller:
                with serial(0, smaller) as number:
                    compute(task, matrix, number * (rows - 1) + larger * rows, rows - 1)

    return build_kernel(spec.arguments, body)


def _operands(epilogue: Epilogue, given: Iterator[Pointer]) -> list[Pointer]:
    """Those that it reads; a window is what it stores to."""
    return [next(given) for _ in epilogue.arguments[:-1]]


class _Block:
    """`rows` rows of one matrix of the batch, from `first` on. Pointers are to whole matrices, or to windows as if they
    were.
    """

    def __init__(self, shape: Shape, target: Target, matrix: Index, first: Index, rows: int, lo: Expr):
        self.shape, self.target, self.matrix, self.rows, self.lo = shape, target, matrix, rows, lo
        self.row = bind(matrix * shape.rows + first)  # of all matrices

    def window(self, windows: Pointer, task: Index) -> Pointer:
        """The task's own memory, from where scores of this block would stand in the matrix of all."""
        return windows.at(task * self.shape.window - self.row * self.shape.stride)

    def scores(
        self, right: Panels | Table, left: Pointer, pointer: Pointer, epilogue: Epilogue, rest: Sequence[Pointer]
    ) -> None:
        """Products with a matrix that has the keys as its columns."""
        self._run(scores_spec(self.shape, self.rows, right, epilogue, self.target), left, pointer, rest)

    def product(self, window: Pointer, right: Pointer, columns: int, out: Pointer) -> None:
        """Products of a window with a matrix of so many columns."""
        self._run(product_spec(self.shape, self.rows, columns, self.target), window, right, (out,))

    def _run(self, spec: GemmSpec, left: Pointer, right: Pointer, rest: Sequence[Pointer]) -> None:
        right = right.at(self.matrix * (spec.right.depth * spec.right.columns))
        gemm = Gemm(spec, self.target, left, right, rest, self.lo)
        gemm.row_block(self.row, 0, 0, gemm.panels + bool(gemm.tail))

    def add_rows(self, left: tuple[Pointer, Axis], right: tuple[Pointer, Axis], out: Pointer) -> None:
        """Add left^T right over the rows of this block to what there is; where it is the only one, to nothing."""
        spec = sum_spec(self.rows, left[1], right[1], self.target)
        (a, b) = (pointer.at(self.row * axis.stride) for pointer, axis in (left, right))
        out = out.at(self.matrix * (left[1].count * right[1].count))
        Reduce(spec, self.target, a, b, (out,), self.lo).block(0, 0, 0, self.rows, Edge(self.shape.blocks > 1, True))

    def softmax(self, window: Pointer, epilogue: Epilogue, rest: Sequence[Pointer]) -> None:
        with self.each_row() as (row, start):
            _, partition = exponentials(window, window, start, self.shape.keys, self.target)
            scale = bind(constant(1.0) / partition)

            def normalise(i: Index, lanes: int) -> None:
                weight = window.load(start + i, lanes) * broadcast(scale, lanes)
                finish(epilogue, rest, weight, Place(start + i, row, i))

            walk(self.shape.keys, self.target.lanes, normalise)

    def slopes(self, weights: Pointer, slopes: Pointer, epilogue: Epilogue, rest: Sequence[Pointer]) -> None:
        """The gradient of a softmax that gave `weights`, from that of the weights: weight * (slope - their product)."""
        with self.each_row() as (row, start):
            total = LaneFold(self.shape.keys, self.target.lanes, 0.0, lambda a, b: a + b)
            walk(
                self.shape.keys,
                self.target.lanes,
                lambda i, lanes: total.add(weights.load(start + i, lanes) * slopes.load(start + i, lanes), lanes),
            )
            mean = bind(total.result())

            def store(i: Index, lanes: int) -> None:
                slope = weights.load(start + i, lanes) * (slopes.load(start + i, lanes) - broadcast(mean, lanes))
                finish(epilogue, rest, slope, Place(start + i, row, i))

            walk(self.shape.keys, self.target.lanes, store)

    def each_vector(self, window: Pointer, epilogue: Epilogue, rest: Sequence[Pointer]) -> None:
        with self.each_row() as (row, start):
            walk(
                self.shape.keys,
                self.target.lanes,
                lambda i, lanes: finish(epilogue, rest, window.load(start + i, lanes), Place(start + i, row, i)),
            )

    @contextmanager
    def each_row(self) -> Iterator[tuple[Index, Index]]:
        """A loop over rows: which of all it is, and its first element in a window."""
        with serial(0, self.rows) as i:
            row = bind(self.row + i)
            yield row, bind(row * self.shape.stride)


def _clear(out: Pointer, elements: int, target: Target, lo: Expr) -> None:
    walk(elements, target.lanes, lambda i, lanes: out.store(i, fill_value(lo, lanes)))
