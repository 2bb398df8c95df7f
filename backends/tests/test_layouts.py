"""Storage by rule: forward, backward and update of a layer agree, and answers need no code generator."""

import subprocess
import sys

import pytest

from edgec.backends.targets import find_target
from edgec.backends.tvm import layouts
from edgec.backends.tvm.backend import TvmBackend
from edgec.backends.tvm.layouts import Layouts
from edgec.graph.ir import Graph, Role
from edgec.graph.ops.add import Add
from edgec.graph.ops.broadcast_to import BroadcastTo
from edgec.graph.ops.concat import Concat
from edgec.graph.ops.conv2d import Conv2d
from edgec.graph.ops.conv2d_input_grad import Conv2dInputGrad
from edgec.graph.ops.conv2d_weight_grad import Conv2dWeightGrad
from edgec.graph.ops.matmul import MatMul
from edgec.graph.ops.max_pool2d_grad import MaxPool2dGrad
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.reduce_max import ReduceMax
from edgec.graph.ops.relu_grad import ReluGrad
from edgec.graph.ops.reshape import Reshape
from edgec.graph.ops.sgd_update import SgdUpdate
from edgec.graph.ops.softmax import Softmax
from edgec.graph.ops.transpose import Transpose
from edgec.graph.types import DType, tensor
from edgec.runtime.abi import Storage
from edgec.tools.testing.group_case import group_of

F32 = DType.F32
AVX2 = find_target("x86-64-v3")


def training_step(groups: int = 1) -> Graph:
    """A layer whose weight is scaled, as live batch norm does, with both gradients and a momentum update."""
    graph = Graph("step")
    op = Conv2d(pads=(1, 1, 1, 1), groups=groups)
    x = graph.add_leaf(Role.INPUT, "x", tensor(F32, 2, 40, 8, 8))
    w = graph.add_leaf(Role.PARAM, "w", tensor(F32, 40, 40 // groups, 3, 3))
    scale = graph.add_leaf(Role.PARAM, "scale", tensor(F32, 40, 1, 1, 1))
    lr, v = graph.add_leaf(Role.SCALAR, "lr", tensor(F32)), graph.add_leaf(Role.STATE, "v", w.type)
    scaled = graph.emit1(Mul(), w, scale, name="scaled")
    y = graph.emit1(op, x, scaled, name="y")
    graph.emit1(Conv2dInputGrad(**op.same(), input_size=(8, 8)), y, scaled, name="dx")
    dw = graph.emit1(Mul(), graph.emit1(Conv2dWeightGrad(**op.same(), kernel_size=(3, 3)), x, y, name="raw"), scale)
    graph.emit(SgdUpdate(momentum=0.9), w, dw, lr, v)
    return graph


def test_everything_near_a_weight_lies_as_the_weight():
    for groups, expected in (
        (1, Storage((40, 40, 3, 3), (2, 3, 1, 0), 16)),
        (40, Storage((40, 1, 3, 3), (2, 3, 1, 0))),
    ):
        graph = training_step(groups)
        chosen = TvmBackend(AVX2).choose_storage([[group_of(graph)]])
        assert chosen == {"w": expected, "v": expected}
        weights = [value for node in graph.nodes for value in node.outputs if value.type == graph.leaves["w"].type]
        assert len(weights) == 5
        assert {Layouts(AVX2).of_activation(value) for value in weights} == {expected}


@pytest.mark.parametrize("trainable", [False, True])
def test_a_frozen_weight_lies_as_what_it_is_read_as(trainable: bool):
    graph = Graph("infer")
    x = graph.add_leaf(Role.INPUT, "x", tensor(F32, 1, 40))
    w = graph.add_leaf(Role.PARAM, "w", tensor(F32, 1, 80, 40), trainable=trainable)
    flat = graph.emit1(Reshape((80, 40)), w)
    graph.outputs["y"] = graph.emit1(MatMul(transpose_b=True), x, flat)
    backend = TvmBackend(AVX2)
    leaves = backend.choose_storage([[group_of(graph)]])
    assert leaves == ({} if trainable else {"w": Storage((80, 40), (1, 0), 16)})
    assert backend.activation_storage([flat])[flat] == leaves.get("w", Storage.row_major((80, 40)))


def test_maps_are_nhwc_and_batches_of_matrices_row_major():
    graph = training_step()
    found = Layouts(AVX2)
    maps = {node.output.name: found.of_activation(node.output) for node in graph.nodes if len(node.outputs) == 1}
    assert maps["y"] == maps["dx"] == Storage.channels_last((2, 40, 8, 8))
    attention = Graph("attention")
    q = attention.add_leaf(Role.INPUT, "q", tensor(F32, 2, 4, 5, 6))
    scores = attention.emit1(MatMul(transpose_b=True), q, q)
    scaled = attention.emit1(Mul(), scores, attention.add_leaf(Role.PARAM, "s", tensor(F32, 1)))
    weights = attention.emit1(Softmax(3), scaled)
    for value in (scores, scaled, weights, attention.emit1(Concat(3), weights, weights)):
        assert Layouts(AVX2).of_activation(value) == Storage.row_major(value.type.shape)
    pooled = graph.emit1(ReduceMax((2, 3), True), graph.nodes[1].output)
    assert Layouts(AVX2).of_activation(graph.emit1(Softmax(1), pooled)) == Storage.channels_last(pooled.type.shape)


def test_the_gradient_of_a_mean_over_pixels_is_a_map():
    graph = Graph("mean")
    dy = graph.add_leaf(Role.INPUT, "dy", tensor(F32, 2, 40))
    spread = graph.emit1(BroadcastTo((2, 40, 3, 3)), graph.emit1(Reshape((2, 40, 1, 1)), dy))
    assert Layouts(AVX2).of_activation(spread) == Storage.channels_last((2, 40, 3, 3))
    row = graph.add_leaf(Role.INPUT, "row", tensor(F32, 2, 40, 3))
    scores = graph.emit1(BroadcastTo((2, 40, 3, 3)), graph.emit1(Reshape((2, 40, 3, 1)), row))
    assert Layouts(AVX2).of_activation(scores).is_row_major


def test_what_goes_to_the_gradient_of_a_pool_is_a_map():
    graph = Graph("head")
    dy, positions = (
        graph.add_leaf(Role.INPUT, "dy", tensor(F32, 2, 320)),
        graph.add_leaf(Role.INPUT, "positions", tensor(DType.U8, 2, 20, 4, 4)),
    )
    unflattened = graph.emit1(Reshape((2, 20, 4, 4)), dy)
    y = graph.add_leaf(Role.INPUT, "y", unflattened.type)
    passed = graph.emit1(ReluGrad(), unflattened, y)
    graph.emit1(MaxPool2dGrad((2, 2), (2, 2), input_size=(8, 8)), passed, positions)
    for value in (unflattened, passed):
        assert Layouts(AVX2).of_activation(value) == Storage.channels_last((2, 20, 4, 4))


def test_an_image_that_is_padded_anyway_stays_as_it_came():
    graph = Graph("first")
    x = graph.add_leaf(Role.INPUT, "x", tensor(F32, 1, 3, 8, 8))
    w = graph.add_leaf(Role.PARAM, "w", tensor(F32, 16, 3, 3, 3))
    graph.emit1(Conv2d(pads=(1, 1, 1, 1)), x, w)
    assert Layouts(AVX2).of_activation(x).is_row_major
    graph.emit1(Conv2d(), x, w)
    assert Layouts(AVX2).of_activation(x) == Storage.channels_last((1, 3, 8, 8))


def test_an_image_that_is_transposed_anyway_stays_as_it_came():
    graph = Graph("first")
    x = graph.add_leaf(Role.INPUT, "x", tensor(DType.U8, 1, 8, 8, 3))
    graph.emit1(Transpose((0, 3, 1, 2)), x)
    assert Layouts(AVX2).of_activation(x).is_row_major


@pytest.mark.parametrize("of_weights", [False, True])
def test_a_long_chain_is_followed_once(of_weights: bool, monkeypatch):
    """Sums of the gradients of many steps, say: time would grow with the square of the steps."""
    asked = []
    rule = layouts._storage_of_weight
    monkeypatch.setattr(layouts, "_storage_of_weight", lambda value, target: asked.append(value) or rule(value, target))
    graph = training_step()
    total = graph.nodes[-2].output if of_weights else graph.add_leaf(Role.INPUT, "rows", tensor(F32, 5, 7))
    chain = [total := graph.emit1(Add(), total, total) for _ in range(50)]
    found = Layouts(AVX2)
    storages = {found.of_activation(value) for value in chain} | {found.expected(value) for value in chain}
    assert storages == {Storage((40, 40, 3, 3), (2, 3, 1, 0), 16) if of_weights else Storage.row_major((5, 7))}
    assert len(asked) <= 2 * len(chain)


def test_micro_controllers_keep_rows():
    backend, graph = TvmBackend(find_target("cortex-m7")), training_step()
    assert backend.choose_storage([[group_of(graph)]]) == {}
    made = [value for node in graph.nodes for value in node.outputs]
    assert all(storage.is_row_major for storage in backend.activation_storage(made).values())


def test_a_backend_answers_without_loading_tvm():
    code = (
        "import sys; from edgec.backends.targets import find_target; "
        "from edgec.backends.tvm.backend import TvmBackend; TvmBackend(find_target('x86')); "
        "assert 'tvm' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
