"""Products on tensor cores: their CUDA C on a processor, where every tile, layout and border is held to the references;
and what NVRTC makes of it.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
from pathlib import Path

import pytest

from edgec.backends import nvrtc
from edgec.backends.targets import find_target
from edgec.backends.tvm.build import build
from edgec.backends.tvm.gpu import tensor_cores
from edgec.backends.tvm.gpu.products import View
from edgec.backends.tvm.gpu.tensor_cores import MAX_SHARED, TILES, choose_tile, lower_tensor_cores
from edgec.graph.errors import UserError
from edgec.graph.ir import Graph, Role
from edgec.graph.ops.add import Add
from edgec.graph.ops.clip import Clip
from edgec.graph.ops.conv2d import Conv2d
from edgec.graph.ops.conv2d_input_grad import Conv2dInputGrad
from edgec.graph.ops.conv2d_weight_grad import Conv2dWeightGrad
from edgec.graph.ops.matmul import MatMul
from edgec.graph.ops.sgd_update import SgdUpdate
from edgec.graph.types import DType, tensor
from edgec.runtime.abi import Storage
from edgec.tools.testing.group_case import check_group, group_of

TARGET = find_target("cuda:sm_90+tf32")
F32 = DType.F32
TF32 = 3e-3  # of the largest result
POINTWISE = Conv2d(), (2, 19, 7, 7), (33, 19, 1, 1)
STRIDED = Conv2d(strides=(2, 2), pads=(1, 1, 1, 1)), (2, 9, 9, 8), (35, 9, 3, 3)
GROUPED = Conv2d(groups=2, pads=(2, 1, 2, 1), dilations=(2, 1)), (1, 18, 8, 9), (20, 9, 3, 3)
GEOMETRIES = pytest.mark.parametrize(("op", "x", "w"), [POINTWISE, STRIDED, GROUPED], ids=["1x1", "strided", "grouped"])


@pytest.fixture(params=[(tile, 1) for tile in TILES] + [(TILES[6], 2), (TILES[2], 3)], ids=str)
def every_choice(request, monkeypatch):
    monkeypatch.setattr(tensor_cores, "choose_tile", lambda *_: request.param)
    return request.param


@pytest.fixture(params=[(TILES[2], 1), (TILES[8], 2)], ids=["whole", "parts"])
def choice(request, monkeypatch):
    monkeypatch.setattr(tensor_cores, "choose_tile", lambda *_: request.param)


def output(op, x, w):
    return op.infer(tensor(F32, *x), tensor(F32, *w))[0].shape


def check(graph, **options):
    row_major = tuple(value for value in graph.leaves.values())
    stems = check_group(graph, TARGET, row_major=row_major, tolerance=TF32, **options)
    assert "tf32" in stems[0]
    return stems


@GEOMETRIES
def test_convolution(choice, op, x, w):
    graph = Graph("forward")
    a, b = graph.add_leaf(Role.INPUT, "x", tensor(F32, *x)), graph.add_leaf(Role.PARAM, "w", tensor(F32, *w))
    bias = graph.add_leaf(Role.PARAM, "b", tensor(F32, w[0], 1, 1))
    before = graph.emit1(Add(), graph.emit1(op, a, b), bias)
    check(graph, outputs=[before, graph.emit1(Clip(low=0.0, high=6.0), before)])


@GEOMETRIES
def test_input_gradient(choice, op, x, w):
    graph = Graph("input_grad")
    dy = graph.add_leaf(Role.INPUT, "dy", tensor(F32, *output(op, x, w)))
    weight = graph.add_leaf(Role.PARAM, "w", tensor(F32, *w))
    graph.emit1(Conv2dInputGrad(**op.same(), input_size=x[2:]), dy, weight)
    check(graph)


@GEOMETRIES
def test_weight_gradient_and_update(choice, op, x, w):
    graph = Graph("weight_grad")
    a = graph.add_leaf(Role.INPUT, "x", tensor(F32, *x))
    dy = graph.add_leaf(Role.INPUT, "dy", tensor(F32, *output(op, x, w)))
    weight, lr = graph.add_leaf(Role.PARAM, "w", tensor(F32, *w)), graph.add_leaf(Role.SCALAR, "lr", tensor(F32))
    gradient = graph.emit1(Conv2dWeightGrad(**op.same(), kernel_size=w[2:]), a, dy)
    updated = graph.emit1(SgdUpdate(), weight, gradient, lr)
    check(graph, outputs=[updated], alias={updated: weight})


@pytest.mark.parametrize("turned", [(False, False), (True, True)], ids=str)
def test_every_tile(every_choice, turned):
    """Operands that lie either way, all three extents ragged."""
    rows, columns, depth = 41, 75, 270
    graph = Graph("matmul")
    a = graph.add_leaf(Role.INPUT, "a", tensor(F32, 1, *((depth, rows) if turned[0] else (rows, depth))))
    b = graph.add_leaf(Role.INPUT, "b", tensor(F32, 2, *((columns, depth) if turned[1] else (depth, columns))))
    graph.emit1(MatMul(*turned), a, b)
    assert len(check(graph)) == 1 + (every_choice[1] > 1)


def test_operands_are_rounded():
    """With what would be exact in f32 and is no TF32, so that nothing else can pass for the tensor cores."""
    graph = Graph("matmul")
    a, b = (graph.add_leaf(Role.INPUT, name, tensor(F32, 64, 64)) for name in "ab")
    graph.emit1(MatMul(), a, b)
    with pytest.raises(AssertionError, match="Mismatched"):
        check_group(graph, TARGET, row_major=(a, b), tolerance=1e-5)


def test_what_fills_a_device():
    """Many tiles are large ones; of few, the depth is cut; a long depth alone is shared out among warps."""
    many, parts = choose_tile(View(1, 1024, 8192, 512), 132, True)
    assert many.rows * many.columns == 8192 and parts == 1
    few, parts = choose_tile(View(1, 96, 16, 100352), 132, True)
    assert parts * View(1, 96, 16, 100352).tiles(few) >= 132
    assert choose_tile(View(1, 96, 16, 100352), 132, False)[1] == 1
    assert all(tile.shared * 4 <= MAX_SHARED for tile in TILES)


@pytest.mark.parametrize("depth", [392, 960, 1280, 1568, 6272, 25088, 100352])
def test_no_part_is_empty(depth):
    """It would begin behind the end of the operands, and read there."""
    for tile, parts in tensor_cores._choices(View(1, 64, 64, depth), True):
        steps = -(-depth // tile.depth)
        assert (parts - 1) * -(-steps // parts) < steps


def test_only_where_it_is_allowed():
    assert not find_target("cuda:sm_90").tf32 and find_target("jetson+tf32").tf32
    for name in ("x86-64-v3+tf32", "jetson+fast"):
        with pytest.raises(UserError, match="E0401"):
            find_target(name)


def nvdisasm() -> Path | None:
    """The toolkit's disassembler, of the package `nvidia-cuda-nvdisasm`."""
    package = importlib.util.find_spec("nvidia")
    folders = package.submodule_search_locations if package and package.submodule_search_locations else ()
    return next((path for folder in folders for path in Path(folder).glob("cu*/bin/nvdisasm")), None)


@pytest.mark.skipif(nvdisasm() is None or not nvrtc.installed(), reason="needs nvidia-cuda-nvdisasm and NVRTC")
@pytest.mark.parametrize("name", ["jetson+tf32", "cuda:sm_90+tf32"])
def test_machine_code(name, monkeypatch, tmp_path):
    """For the architecture asked for, with instructions of its tensor cores, and no register in memory."""
    monkeypatch.setenv("EDGEC_CACHE", str(tmp_path))
    target = find_target(name)
    graph = Graph("matmul")
    a, b = (graph.add_leaf(Role.INPUT, each, tensor(F32, 256, 256)) for each in "ab")
    graph.emit1(MatMul(), a, b)
    group = group_of(graph)
    lowering = lower_tensor_cores(group, {v: Storage.row_major(v.type.shape) for v in graph.values()}, {}, target)
    image = build([call.spec for call in lowering.calls], target)
    (tmp_path / "cubin").write_bytes(image.data)
    command = [nvdisasm(), "-c", tmp_path / "cubin"]
    code = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert f"EF_CUDA_SM{target.capability}" in code
    assert "HMMA.1688.F32.TF32" in code
    assert not re.search(r"\b(LDL|STL)\b", code)
