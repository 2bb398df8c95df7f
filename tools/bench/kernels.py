"""Speed of generated kernels, layer by layer, as a share of what a large matrix product reaches in the same minute.

    python -m edgec.tools.bench.kernels --target x86 --network mobilenet_v2 --batch 8 --size 96 --pointwise

One thread, operands in cache as far as they fit: an upper bound for what a program reaches, and a way to see which
kernel falls behind. The peak is measured beside every layer, and each share is of the best so far; that of all layers,
weighted by their operations, is of the best of the run. Times are of the thread, without the pauses of a busy machine.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from edgec.backends.base import Lowering, Target
from edgec.backends.targets import find_target
from edgec.backends.tvm.backend import TvmBackend
from edgec.backends.tvm.strategies import lower_group
from edgec.backends.tvm.tuning.database import find_tuning
from edgec.graph.ir import Graph, Role, Value
from edgec.graph.ops.add import Add
from edgec.graph.ops.conv2d import Conv2d
from edgec.graph.ops.conv2d_input_grad import Conv2dInputGrad
from edgec.graph.ops.conv2d_weight_grad import Conv2dWeightGrad
from edgec.graph.ops.hard_swish import HardSwish
from edgec.graph.ops.hard_swish_grad import HardSwishGrad
from edgec.graph.ops.matmul import MatMul
from edgec.graph.ops.sgd_update import SgdUpdate
from edgec.graph.types import DType, tensor
from edgec.tools.testing.group_case import group_of, storages
from edgec.tools.tune.native import Memory, NativeCode, runner

F32 = DType.F32


@dataclass(frozen=True)
class Layer:
    """A convolution: channels in and out (depthwise if `outputs` is 0), square map, kernel, stride; `count` of them."""

    inputs: int
    outputs: int
    size: int
    kernel: int = 1
    stride: int = 1
    count: int = 1

    def __str__(self) -> str:
        kind = "dw" if self.outputs == 0 else "conv"
        return (
            f"{kind} {self.inputs}>{self.outputs or self.inputs} {self.size}x{self.size} k{self.kernel} s{self.stride}"
        )


ORIENTATION = (
    Layer(3, 16, 224, 3, 2), Layer(16, 0, 112, 3), Layer(16, 32, 112), Layer(32, 0, 112, 3, 2), Layer(32, 64, 56),
    Layer(64, 0, 56, 3), Layer(64, 64, 56), Layer(64, 0, 56, 3, 2), Layer(64, 128, 28), Layer(128, 0, 28, 3),
    Layer(128, 128, 28), Layer(128, 0, 28, 3, 2), Layer(128, 256, 14), Layer(256, 0, 14, 5, count=5),
    Layer(256, 256, 14, count=5), Layer(256, 0, 14, 5, 2), Layer(256, 64, 1), Layer(64, 256, 1), Layer(256, 512, 7),
    Layer(512, 0, 7, 5), Layer(512, 128, 1), Layer(128, 512, 1), Layer(512, 512, 7), Layer(512, 1280, 1),
)  # fmt: skip
MOBILENET_V2 = (
    Layer(3, 32, 224, 3, 2), Layer(32, 0, 112, 3), Layer(32, 16, 112), Layer(16, 96, 112), Layer(96, 0, 112, 3, 2),
    Layer(96, 24, 56), Layer(24, 144, 56, count=2), Layer(144, 0, 56, 3), Layer(144, 24, 56), Layer(144, 0, 56, 3, 2),
    Layer(144, 32, 28), Layer(32, 192, 28, count=3), Layer(192, 0, 28, 3, count=2), Layer(192, 32, 28, count=2),
    Layer(192, 0, 28, 3, 2), Layer(192, 64, 14), Layer(64, 384, 14, count=4), Layer(384, 0, 14, 3, count=4),
    Layer(384, 64, 14, count=3), Layer(384, 96, 14), Layer(96, 576, 14, count=3), Layer(576, 0, 14, 3, count=2),
    Layer(576, 96, 14, count=2), Layer(576, 0, 14, 3, 2), Layer(576, 160, 7), Layer(160, 960, 7, count=3),
    Layer(960, 0, 7, 3, count=3), Layer(960, 160, 7, count=2), Layer(960, 320, 7), Layer(320, 1280, 7),
)  # fmt: skip
DENSE = (Layer(64, 64, 56, 3), Layer(128, 128, 28, 3), Layer(64, 128, 56, 3, 2), Layer(32, 64, 14, 3))
NETWORKS = {"orientation": ORIENTATION, "mobilenet_v2": MOBILENET_V2, "dense": DENSE}


def cases(layer: Layer, batch: int) -> Iterator[tuple[str, Graph, dict[Value, Value], list[Value]]]:
    """(what, graph, aliases, outputs) of the three groups a training step makes of a layer, with usual epilogues."""
    groups = layer.inputs if layer.outputs == 0 else 1
    outputs = layer.outputs or layer.inputs
    op = Conv2d((layer.stride,) * 2, (layer.kernel // 2,) * 4, groups=groups)
    x_type = tensor(F32, batch, layer.inputs, layer.size, layer.size)
    w_type = tensor(F32, outputs, layer.inputs // groups, layer.kernel, layer.kernel)
    (y_type,) = op.infer(x_type, w_type)

    graph = Graph("forward")
    x, w = graph.add_leaf(Role.INPUT, "x", x_type), graph.add_leaf(Role.PARAM, "w", w_type)
    bias = graph.add_leaf(Role.PARAM, "b", tensor(F32, outputs, 1, 1))
    y = graph.emit1(HardSwish(), graph.emit1(Add(), graph.emit1(op, x, w), bias))
    yield "forward", graph, {}, [y]

    graph = Graph("input_grad")
    dy, w = graph.add_leaf(Role.INPUT, "dy", y_type), graph.add_leaf(Role.PARAM, "w", w_type)
    saved = graph.add_leaf(Role.INPUT, "x", x_type)
    dx = graph.emit1(Conv2dInputGrad(**op.same(), input_size=x_type.shape[2:]), dy, w)
    yield "input grad", graph, {}, [graph.emit1(HardSwishGrad(), dx, saved)]

    graph = Graph("weight_grad")
    x, dy = graph.add_leaf(Role.INPUT, "x", x_type), graph.add_leaf(Role.INPUT, "dy", y_type)
    dw = graph.emit1(Conv2dWeightGrad(**op.same(), kernel_size=w_type.shape[2:]), x, dy)
    w, lr = graph.add_leaf(Role.PARAM, "w", w_type), graph.add_leaf(Role.SCALAR, "lr", tensor(F32))
    updated = graph.emit1(SgdUpdate(), w, dw, lr)
    yield "weight grad", graph, {updated: w}, [updated]


def calls_of(lowering: Lowering, alias: Mapping[Value, Value], target: Target) -> Callable[[], None]:
    """A function that runs a lowering on made-up data."""
    code = NativeCode(TvmBackend(target).build([call.spec for call in lowering.calls]))
    return runner(code, [(Memory(alias), lowering)])


def best_time(run: Callable[[], None], budget: float) -> float:
    """Seconds of this thread for one pass over all calls: the least of many."""

    def once() -> float:
        start = time.thread_time()
        run()
        return time.thread_time() - start

    once()
    return min(once() for _ in range(max(5, min(2000, int(budget / max(once(), 1e-6))))))


def peak_calls(target: Target) -> Callable[[], None]:
    """A product of 504 x 256 by 256 x 768 with a packed right operand."""
    graph = Graph("peak")
    a = graph.add_leaf(Role.INPUT, "a", tensor(F32, 504, 256))
    graph.emit1(MatMul(), a, graph.add_leaf(Role.PARAM, "b", tensor(F32, 256, 768)))
    group = group_of(graph)
    return calls_of(lower_group(group, storages(graph, target), {}, target), {}, target)


PEAK_FLOPS = 2 * 504 * 256 * 768


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--target", default="x86")
    parser.add_argument("--network", choices=NETWORKS, default="orientation")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--size", type=int, default=224, help="of the network's image")
    parser.add_argument("--pointwise", action="store_true", help="pointwise convolutions alone")
    parser.add_argument("--seconds", type=float, default=0.05, help="for each kernel")
    arguments = parser.parse_args()
    target = find_target(arguments.target)
    peak = peak_calls(target)
    tuning = find_tuning()
    totals: dict[str, list[float]] = {}  # seconds, operations
    best = best_time(peak, 0.1)
    print(f"{'layer':34} {'kernels':12} {'us':>9} {'GF/s':>7} {'% peak':>7} {'GB/s':>6}")  # noqa: T201
    for drawn in NETWORKS[arguments.network]:
        layer = replace(drawn, size=max(1, drawn.size * arguments.size // 224))
        if arguments.pointwise and not (layer.kernel == 1 and layer.outputs):
            continue
        for what, graph, alias, outputs in cases(layer, arguments.batch):
            group = group_of(graph, outputs)
            lowering = lower_group(group, storages(graph, target), alias, target, tuning)
            seconds = best_time(calls_of(lowering, alias, target), arguments.seconds)
            flops = 2 * sum(call.macs for call in lowering.calls)
            moved = sum(value.type.bytes for value in (*group.inputs, *group.outputs))
            best = min(best, best_time(peak, 0.01))
            total = totals.setdefault(what, [0.0, 0.0])
            total[0] += seconds * layer.count
            total[1] += flops * layer.count
            print(  # noqa: T201
                f"{layer!s:34} {what:12} {seconds * 1e6:9.1f} {flops / seconds / 1e9:7.1f} "
                f"{_share(flops, seconds, best):7.0f} {moved / seconds / 1e9:6.0f}"
            )
    totals["together"] = [sum(column) for column in zip(*totals.values(), strict=True)]
    for what, (seconds, flops) in totals.items():
        rate, share = flops / seconds / 1e9, _share(flops, seconds, best)
        print(f"{'all layers':34} {what:12} {seconds * 1e6:9.1f} {rate:7.1f} {share:7.0f}")  # noqa: T201


def _share(flops: float, seconds: float, peak_seconds: float) -> float:
    """Per cent of the peak."""
    return 100 * flops / seconds / (PEAK_FLOPS / peak_seconds)


if __name__ == "__main__":
    main()
