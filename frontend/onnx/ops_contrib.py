"""Operators of onnxruntime's own domain, `com.microsoft`, that its optimiser writes in place of several standard ones.

https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from __future__ import annotations

from collections.abc import Callable

from edgec.frontend.onnx.context import Context, Converted
from edgec.frontend.onnx.model import Node, Unsupported
from edgec.frontend.onnx.ops_math import gelu, tanh_gelu
from edgec.graph.ir import Value
from edgec.graph.ops.add import Add
from edgec.graph.ops.layer_norm import LayerNorm
from edgec.graph.ops.matmul import MatMul
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.rms_norm import RmsNorm
from edgec.graph.ops.sigmoid import Sigmoid

DOMAIN = "com.microsoft"


def _biased(ctx: Context, node: Node) -> Value:
    """Input 0 and the bias of input 1, if there is one."""
    x = ctx.value(node, 0)
    return ctx.emit(node, Add(), x, ctx.value(node, 1)) if ctx.has(node, 1) else x


def _gelu(ctx: Context, node: Node) -> Converted:
    return gelu(ctx, node, _biased(ctx, node))


def _fast_gelu(ctx: Context, node: Node) -> Converted:
    return tanh_gelu(ctx, node, _biased(ctx, node))


def _quick_gelu(ctx: Context, node: Node) -> Converted:
    """x * sigmoid(alpha * x)."""
    x = ctx.value(node, 0)
    scaled = ctx.emit(node, Mul(), x, ctx.number(node, node.get_float("alpha", 1.702), x))
    return ctx.emit(node, Mul(), x, ctx.emit(node, Sigmoid(), scaled))


def _fused_matmul(ctx: Context, node: Node) -> Converted:
    """alpha * a @ b, their last two axes swapped as asked."""
    a, b = ctx.value(node, 0), ctx.value(node, 1)
    if min(a.type.rank, b.type.rank) < 2 or node.get_int("transBatchA", 0) or node.get_int("transBatchB", 0):
        raise Unsupported(f"a product of {a.type} and {b.type} with batches in other places, or of vectors")
    y = ctx.emit(node, MatMul(bool(node.get_int("transA", 0)), bool(node.get_int("transB", 0))), a, b)
    alpha = node.get_float("alpha", 1.0)
    return y if alpha == 1 else ctx.emit(node, Mul(), y, ctx.number(node, alpha, y))


def _skip_norm(ctx: Context, node: Node) -> Converted:
    """The norm of x + skip (+ bias) over the last axis; the fourth result is that sum.

    Layer norm: x, skip, gamma, beta, bias. Root mean square: x, skip, gamma, bias.
    """
    total = ctx.emit(node, Add(), ctx.value(node, 0), ctx.value(node, 1))
    layer = node.op == "SkipLayerNormalization"
    bias = 4 if layer else 3
    if ctx.has(node, bias):
        total = ctx.emit(node, Add(), total, ctx.value(node, bias))
    factors = [ctx.value(node, index) for index in ((2, 3) if layer else (2,)) if ctx.has(node, index)]
    kind, epsilon = (LayerNorm if layer else RmsNorm), node.get_float("epsilon", 1e-5)
    y, *_ = ctx.emit_all(node, kind(total.type.rank - 1, epsilon), total, *factors)
    if any(node.outputs[1:3]):
        raise Unsupported("asks for the statistics of its rows")
    return y, y, y, total


CONTRIB: dict[str, Callable[[Context, Node], Converted]] = {
    "Gelu": _gelu,
    "BiasGelu": _gelu,
    "FastGelu": _fast_gelu,
    "QuickGelu": _quick_gelu,
    "FusedMatMul": _fused_matmul,
    "SkipLayerNormalization": _skip_norm,
    "SkipSimplifiedLayerNormalization": _skip_norm,
}
