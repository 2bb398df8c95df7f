"""What an artifact carries besides its tensors, so that the state of the source model can be read from it."""

from __future__ import annotations

import numpy as np

from edgec.compiler.originals import find_originals
from edgec.compiler.passbase import Options
from edgec.compiler.pipeline import transform_module
from edgec.compiler.train import Train
from edgec.graph.ir import Graph, Module, Role, SourceTensor
from edgec.graph.ops.batch_norm import BatchNorm
from edgec.graph.ops.conv2d import Conv2d
from edgec.graph.types import DType, TensorType
from edgec.runtime.abi import Storage
from edgec.runtime.format import Original, Tensor, TensorKind
from edgec.runtime.original import decode_originals, encode_originals

KINDS = {Role.PARAM: TensorKind.PARAM, Role.STATE: TensorKind.STATE, Role.CONSTANT: TensorKind.CONSTANT}
CHANNELS = 32


def norm_after_convolution(dead: int = 0) -> Module:
    """`dead` channels have gamma 0; `again` is `w` by another name, `unread` and `batches` nobody reads."""
    rng = np.random.default_rng(0)
    state = {
        "w": rng.standard_normal((CHANNELS, 16, 3, 3)),
        "gamma": np.where(np.arange(CHANNELS) < dead, 0, rng.uniform(0.5, 2, CHANNELS)),
        "beta": rng.standard_normal(CHANNELS),
        "mean": rng.standard_normal(CHANNELS),
        "variance": rng.uniform(0.5, 2, CHANNELS),
    }
    arrays = {name: array.astype(np.float32) for name, array in state.items()}
    graph = Graph("infer")
    x = graph.add_leaf(Role.INPUT, "x", TensorType(DType.F32, (1, 16, 8, 8)))
    w, *norm = (
        graph.add_leaf(Role.PARAM, name, TensorType(DType.F32, array.shape), data=array)
        for name, array in arrays.items()
    )
    graph.outputs["y"] = graph.emit1(BatchNorm(1e-5), graph.emit1(Conv2d(pads=(1, 1, 1, 1)), x, w), *norm)
    source = {name: SourceTensor(array, name) for name, array in arrays.items()}
    source["again"] = SourceTensor(arrays["w"], "w")
    source["unread"] = SourceTensor(np.arange(3), "unread")
    source["batches"] = SourceTensor(np.array(4), "batches", counts_batches=True)
    return Module({"infer": graph}, source)


def packed(module: Module, train: Train | None = None) -> tuple[dict[str, Original], dict[str, np.ndarray], int]:
    """Originals by name, the whole state as it is read back, and the bytes of the section."""
    transform_module(module, Options(train=train))
    leaves = {leaf.name: leaf for graph in module.programs.values() for leaf in graph.leaves.values()}
    tensors = [
        Tensor(leaf.name, KINDS[leaf.role], leaf.data, Storage.row_major(leaf.type.shape))
        for leaf in leaves.values()
        if leaf.role in KINDS
    ]
    originals = find_originals(module, tensors)
    data = {tensor.name: tensor.data for tensor in tensors}
    section = encode_originals(originals, data)
    values = {tensor.name: tensor.data for tensor in tensors if tensor.kind is TensorKind.PARAM}
    values |= {stored.name: stored.value(data.__getitem__) for stored in decode_originals(section)}
    return {original.name: original for original in originals}, values, len(section)


def assert_is_state(values: dict[str, np.ndarray], module: Module) -> None:
    assert values.keys() == module.source.keys()
    for name, tensor in module.source.items():
        assert values[name].dtype == tensor.data.dtype and values[name].tobytes() == tensor.data.tobytes(), name


def test_a_folded_weight_takes_a_few_bits_an_element() -> None:
    module = norm_after_convolution()
    originals, values, size = packed(module)
    assert_is_state(values, module)
    assert originals["w"].tensor.startswith("w") and originals["w"].axis == 0
    small = sum(module.source[name].data.nbytes for name in ("gamma", "beta", "mean", "variance"))
    # `again` is folded too, and coded a second time.
    assert size < 2 * (0.08 * values["w"].nbytes) + small + 1024


def test_channels_that_a_norm_switches_off_come_back() -> None:
    for dead in (5, CHANNELS - 5, CHANNELS):
        module = norm_after_convolution(dead)
        assert_is_state(packed(module)[1], module)


def test_what_is_trained_stands_for_what_it_began_as() -> None:
    module = norm_after_convolution()
    originals, values, _ = packed(module, Train(loss="mse", batch=1))
    assert_is_state(values, module)
    assert (originals["again"].data, originals["again"].tensor) == (None, "w")
    assert originals.keys() == {"again", "unread", "batches", "mean", "variance"}
    assert not originals["batches"].counter


def test_batches_are_counted_where_statistics_move() -> None:
    module = norm_after_convolution()
    originals, values, _ = packed(module, Train(loss="mse", batch=1, batch_norm="train"))
    assert_is_state(values, module)
    assert originals.keys() == {"again", "unread", "batches"}
    assert originals["batches"].counter in {target.name for target in module.programs["train"].updates}
