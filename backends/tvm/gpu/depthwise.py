"""Depthwise convolutions on devices, and their gradients: one filter per channel.

Forward and input gradient: an item has `span` results above one another, so that neighbouring items read and write
neighbours and a row that is read serves several results. Weight gradient: a work group adds all taps of one channel
over a part of the positions, which are read once; parts are added in order by a second kernel. Nothing here loads tvm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

from edgec.backends.base import Argument, Group, KernelCall, Lowering
from edgec.backends.tvm.computation import Computation, bind_computation
from edgec.backends.tvm.gpu.kernels import ITEMS, MAX_TEAM
from edgec.backends.tvm.gpu.parts import lower_in_parts
from edgec.backends.tvm.layouts import is_depthwise
from edgec.graph.ir import Value
from edgec.graph.ops.conv2d import Conv2d
from edgec.graph.ops.conv2d_input_grad import Conv2dInputGrad
from edgec.graph.ops.conv2d_weight_grad import Conv2dWeightGrad
from edgec.graph.types import DType
from edgec.runtime.abi import MAX_KERNEL_ARGS, Storage

MAX_TAPS = 25  # weights that an item holds
MIN_ITEMS = 32768  # below, items have fewer results
MIN_GROUPS = 512  # of weight gradients; below, positions are cut into parts
MIN_POSITIONS = 512  # of a part


@dataclass(frozen=True)
class DepthwiseSpec:
    """`span` neighbouring rows of a column of the result for each item."""

    computation: Computation
    span: int

    @property
    def stem(self) -> str:
        return f"{self.computation.stem}_depthwise"

    @property
    def arguments(self) -> tuple[Argument, ...]:
        return self.computation.arguments

    @property
    def threads(self) -> int:
        return ITEMS

    @property
    def chunks(self) -> tuple[int, int, int, int]:
        """How many items there are, by image, channel, rows and column."""
        n, c, h, w = self.computation.shape
        return n, c, -(-h // self.span), w

    @property
    def groups(self) -> int:
        return -(-math.prod(self.chunks) // self.threads)

    def narrowed(self, most: int) -> Self:
        return self


@dataclass(frozen=True)
class DepthwiseSumSpec:
    """One of `parts` of the positions for each group of a channel: with more than one, sums go to the last argument."""

    computation: Computation
    channels: int
    positions: int
    parts: int = 1
    threads: int = MAX_TEAM

    @property
    def stem(self) -> str:
        name = self.computation.stem if self.parts == 1 else "f32_conv2d_weight_grad_part"
        return f"{name}_depthwise"

    @property
    def arguments(self) -> tuple[Argument, ...]:
        return self.computation.arguments

    @property
    def groups(self) -> int:
        return self.channels * self.parts

    def narrowed(self, most: int) -> Self:
        return replace(self, threads=min(self.threads, most))


def lower_device_depthwise(
    group: Group, storage: Mapping[Value, Storage], alias: Mapping[Value, Value]
) -> Lowering | None:
    """For a depthwise anchor in f32 with few taps; None for others."""
    op, anchor = group.anchor.op, group.anchor
    if not isinstance(op, (Conv2d, Conv2dInputGrad, Conv2dWeightGrad)):
        return None
    weight = (anchor.output if isinstance(op, Conv2dWeightGrad) else anchor.inputs[1]).type.shape
    if not is_depthwise(op, weight) or math.prod(weight[2:]) > MAX_TAPS:
        return None
    if any(value.type.dtype is not DType.F32 for value in (*anchor.inputs, *anchor.outputs)):
        return None
    bound = bind_computation(group, storage, alias)
    if not isinstance(op, Conv2dWeightGrad):
        spec = DepthwiseSpec(bound.computation, _span(op, anchor.output.type.shape))
        return Lowering((KernelCall(spec, bound.operands, spec.groups, anchor.cost.macs, bound.label),))
    n, channels, height, width = anchor.inputs[1].type.shape
    positions = n * height * width
    wanted = min(-(-MIN_GROUPS // channels), max(1, positions // MIN_POSITIONS))
    parts = wanted if len(bound.operands) < MAX_KERNEL_ARGS else 1
    return lower_in_parts(DepthwiseSumSpec(bound.computation, channels, positions, parts), bound, anchor)


def _span(op: Conv2d | Conv2dInputGrad, shape: tuple[int, ...]) -> int:
    """Of an input gradient a multiple of the stride, so that the same rows of items meet the same taps."""
    stride = op.strides[0] if isinstance(op, Conv2dInputGrad) else 1
    spans = [span for span in (4, 2, 1) if span % stride == 0] or [stride]
    return next((span for span in spans if math.prod(shape) // span >= MIN_ITEMS), spans[-1])
