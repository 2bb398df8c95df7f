"""Winograd's filtering: its matrices, where it is chosen, and its kernels against numpy."""

from dataclasses import dataclass

import numpy as np
import pytest

from edgec.backends.targets import find_target
from edgec.backends.tvm.tuning.choice import MODEL, by_model
from edgec.backends.tvm.tuning.winograd import WinogradProblem, WinogradTile
from edgec.backends.tvm.winograd import TILES, transforms
from edgec.graph.ir import Graph, Role
from edgec.graph.ops.add import Add
from edgec.graph.ops.conv2d import Conv2d
from edgec.graph.ops.hard_swish import HardSwish
from edgec.graph.types import DType, tensor
from edgec.tools.testing.group_case import check_group

F32 = DType.F32
X86, AVX2, ARM = (find_target(name) for name in ("x86", "x86-64-v3", "rpi4"))


@pytest.mark.parametrize("tile", TILES)
def test_transforms_make_a_convolution(tile: int):
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=tile + 2), rng.normal(size=3)
    matrices = transforms(tile)
    results = matrices.products @ ((matrices.inputs @ x) * (matrices.filters @ w))
    np.testing.assert_allclose(results, np.correlate(x, w), atol=1e-14)


@dataclass(frozen=True)
class Filtering:
    """This tile, whatever pays."""

    tile: int

    def choose(self, problem, target):
        return WinogradTile(self.tile) if isinstance(problem, WinogradProblem) else MODEL.choose(problem, target)


def lower(x: tuple[int, ...], outputs: int, target, tile: int, pads=(1, 1, 1, 1), **leaf) -> list[str]:
    """Stems of the kernels of a 3 x 3 convolution with bias, activation and a residual, after a check of what they
    compute; the result overwrites the residual.
    """
    graph = Graph("forward")
    source = graph.add_leaf(Role.INPUT, "x", tensor(F32, *x))
    w = graph.add_leaf(Role.PARAM, "w", tensor(F32, outputs, x[1], 3, 3), **leaf)
    bias = graph.add_leaf(Role.PARAM, "b", tensor(F32, outputs, 1, 1))
    y = graph.emit1(Conv2d(pads=pads), source, w)
    residual = graph.add_leaf(Role.INPUT, "r", y.type)
    before = graph.emit1(Add(), y, bias)
    result = graph.emit1(Add(), residual, graph.emit1(HardSwish(), before))
    return check_group(graph, target, outputs=[before, result], alias={result: residual}, tuning=Filtering(tile))


@pytest.mark.parametrize(
    ("x", "outputs", "pads", "tile"),
    [
        ((1, 32, 17, 22), 40, (1, 1, 1, 1), 4),  # a narrow last panel, tiles cut at the right and below
        ((2, 35, 18, 21), 37, (0, 2, 1, 0), 4),  # channels that are no vectors, borders of any width
        ((3, 24, 14, 14), 16, (1, 1, 1, 1), 4),
        ((1, 128, 13, 12), 83, (1, 1, 1, 1), 2),
        ((1, 300, 14, 14), 32, (1, 1, 1, 1), 2),  # sums in chains
    ],
    ids=["ragged", "odd", "images", "small", "deep"],
)
@pytest.mark.parametrize("target", [X86, AVX2], ids=lambda t: t.name)
def test_forward(target, x: tuple[int, ...], outputs: int, pads: tuple[int, ...], tile: int):
    assert lower(x, outputs, target, tile, pads)[-1].startswith(f"f32_winograd{tile}")


def test_a_weight_that_is_trained_is_left_alone():
    assert "conv2d" in lower((1, 32, 17, 22), 40, X86, 4, trainable=True)[-1]


@pytest.mark.parametrize("target", [X86, AVX2, ARM], ids=lambda t: t.name)
@pytest.mark.parametrize(
    ("out", "channels", "tile"),
    [
        ((1, 64, 56, 56), 64, 4),
        ((1, 128, 28, 28), 128, 4),
        ((1, 32, 14, 14), 32, 4),
        ((8, 256, 14, 14), 256, 4),
        ((1, 8, 56, 56), 8, 4),
        ((1, 512, 28, 28), 512, 2),  # filters for 4 x 4 would take 38 MB
        ((1, 512, 7, 7), 512, 0),  # filters are all there is to move
        ((1, 16, 224, 224), 3, 0),  # transforms are all there is to do
    ],
)
def test_choice(target, out: tuple[int, ...], channels: int, tile: int):
    images, columns, *size = out
    assert by_model(WinogradProblem(images, *size, channels, columns), target).tile == tile
