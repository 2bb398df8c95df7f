"""Mutations of every part of a model that has all of ONNX's machinery: control flow, functions, lists, sparse and
external data. Whatever comes of them, only UserError gets out. The long test is a session; EDGEC_FUZZ_SEED moves
it elsewhere.
"""

import os
import random
from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf.message import Message
from onnx import TensorProto, helper, numpy_helper

from edgec.frontend.onnx import read_onnx
from edgec.graph.errors import UserError

INTEGERS = [-(2**63), -(2**31), -3, -1, 0, 1, 2, 3, 7, 64, 2**20, 2**31, 2**40, 2**62, 2**63 - 1]
FLOATS = [0.0, -1.5, 1e30, float("inf"), float("nan")]
X = (2, 3)
node = helper.make_node


def typed(name: str, shape: tuple[int, ...] | None = None, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def rich_model() -> onnx.ModelProto:
    """x f32[2,3] -> y: a function in a branch, a loop over a list, a scan, shapes that are computed, sparse weights."""
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    leaky = node("LeakyRelu", ["a"], ["b"])
    leaky.attribute.append(onnx.AttributeProto(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT))
    inner = helper.make_function(
        "own", "leaky", ["a"], ["b"], [leaky], opsets, [], [helper.make_attribute("slope", 0.1)]
    )
    call = node("leaky", ["t"], ["c"], domain="own", slope=0.3)
    outer = helper.make_function("own", "outer", ["a", "w"], ["c"], [node("MatMul", ["a", "w"], ["t"]), call], opsets)
    branch = helper.make_graph([node("outer", ["h", "w"], ["r"], domain="own")], "then", [], [typed("r")])
    other = helper.make_graph([node("Neg", ["h"], ["r"])], "else", [], [typed("r")])
    steps = [
        node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        node("Mul", ["f", "picked"], ["scaled"]),
        node("Add", ["carried", "scaled"], ["next"]),
        node("SequenceInsert", ["list", "next"], ["longer"]),
        node("Less", ["i", "limit"], ["on"]),
    ]
    starts = [typed("i", (), TensorProto.INT64), typed("going", (), TensorProto.BOOL), typed("carried")]
    starts.append(helper.make_tensor_sequence_value_info("list", 1, None))
    ends = [typed("on", (), TensorProto.BOOL), typed("next"), helper.make_tensor_sequence_value_info("longer", 1, None)]
    loop = helper.make_graph(steps, "loop", starts, ends)
    scan = helper.make_graph(
        [node("Add", ["state", "row"], ["sum"]), node("Exp", ["sum"], ["kept"])],
        "scan",
        [typed("state"), typed("row")],
        [typed("sum"), typed("kept")],
    )
    nodes = [
        node("Add", ["x", "sparse"], ["h"]),
        node("Shape", ["h"], ["shape"]),
        node("Gather", ["shape", "zero"], ["rows"]),
        node("Equal", ["rows", "two"], ["choice"]),
        node("If", ["choice"], ["picked"], then_branch=branch, else_branch=other),
        node("SequenceEmpty", [], ["none"]),
        node("Loop", ["three", "", "picked", "none"], ["last", "all"], body=loop),
        node("SequenceAt", ["all", "one"], ["second"]),
        node("ConcatFromSequence", ["all"], ["joined"], axis=0),
        node("Scan", ["start", "joined"], ["state_out", "scanned"], body=scan, num_scan_inputs=1),
        node("ScatterND", ["shape", "place", "four"], ["wanted"]),
        node("Reshape", ["second", "minus"], ["flat"]),
        node("Optional", ["flat"], ["maybe"]),
        node("OptionalGetElement", ["maybe"], ["element"]),
        node("ReduceSum", ["scanned"], ["total"], keepdims=0),
        node("Resize", ["image", "", "scales"], ["big"], mode="linear"),
        node("ReduceMean", ["big"], ["mean"], keepdims=0),
        node("Add", ["element", "total"], ["s"]),
        node("Add", ["s", "mean"], ["y"]),
        node("Expand", ["row", "wanted"], ["e"]),
    ]
    rng = np.random.default_rng(0)
    fixed = {
        "w": rng.standard_normal((3, 3)).astype(np.float32),
        "image": rng.standard_normal((1, 1, 3, 3)).astype(np.float32),
        "scales": np.float32([1, 1, 2, 2]),
        "start": np.zeros(3, np.float32),
        "row": np.ones((1, 3), np.float32),
        "limit": np.array(40),
        "place": np.array([[0]]),
        "four": np.array([4]),
        "minus": np.array([-1]),
    } | {name: np.array(value) for name, value in (("zero", 0), ("one", 1), ("two", 2), ("three", 3))}
    tensors = [numpy_helper.from_array(array, name) for name, array in fixed.items()]
    graph = helper.make_graph(nodes, "g", [typed("x", ("N", 3))], [typed("y"), typed("e")], tensors)
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(np.float32([1, 2]), "sparse"), numpy_helper.from_array(np.array([1, 5])), X
    )
    graph.sparse_initializer.append(sparse)
    return helper.make_model(graph, functions=[inner, outer], opset_imports=opsets, ir_version=10)


@pytest.fixture(scope="module")
def rich(tmp_path_factory) -> Path:
    """The model in a file, its dense tensors in another one."""
    path = tmp_path_factory.mktemp("rich") / "m.onnx"
    onnx.save(rich_model(), path, save_as_external_data=True, location="m.data", size_threshold=0)
    return path


def outcome(source: Path | onnx.ModelProto) -> str:
    """The error code, or "ok"; anything but UserError fails the test."""
    try:
        read_onnx(source, batch=2)
    except UserError as error:
        assert str(error).startswith(f"error[{error.code}]: ") and len(str(error)) < 100_000
        return error.code
    return "ok"


def messages(root: Message) -> list[Message]:
    """`root` and everything inside it."""
    found, left = [], [root]
    while left:
        message = left.pop()
        found.append(message)
        for field, value in message.ListFields():
            if field.message_type is not None:
                left += list(value) if field.is_repeated else [value]
    return found


def mutate(root: Message, rng: random.Random) -> None:
    """One change somewhere: a value, a name of another place, an item gone, doubled, moved, or one of elsewhere."""
    everything = [message for message in messages(root) if message.ListFields()]
    message = rng.choice(everything)
    field, value = rng.choice(message.ListFields())
    alike = [other for other in everything if field in dict(other.ListFields())]
    other = getattr(rng.choice(alike), field.name)
    if not field.is_repeated:
        match rng.randrange(3):
            case 0:
                message.ClearField(field.name)
            case 1 if field.message_type is None:
                setattr(message, field.name, other)
            case _:
                if field.message_type is not None:
                    value.CopyFrom(type(value).FromString(other.SerializeToString()))
                else:
                    setattr(message, field.name, _scalar(field, value, rng))
        return
    items = list(value)
    match rng.randrange(5):
        case 0:
            items.pop(rng.randrange(len(items)))
        case 1:
            items.insert(rng.randrange(len(items) + 1), rng.choice(items))
        case 2:
            rng.shuffle(items)
        case 3:
            items[rng.randrange(len(items))] = rng.choice(list(other))
        case 4 if field.message_type is None:
            items[rng.randrange(len(items))] = _scalar(field, items[0], rng)
    if field.message_type is not None:
        items = [type(item).FromString(item.SerializeToString()) for item in items]
    del value[:]
    value.extend(items)


def _scalar(field, value: object, rng: random.Random) -> object:
    if isinstance(value, str):
        return rng.choice(["", "x", "y", "w", "own", value * 3, "\x1b[0m", "é" * 300])
    if isinstance(value, bytes):
        return rng.choice([b"", value[:-1], value * 2, bytes(reversed(value))])
    if isinstance(value, float):
        return rng.choice(FLOATS)
    if field.enum_type is not None:
        return rng.choice([entry.number for entry in field.enum_type.values])
    small = 2**31 - 1 if field.cpp_type in (field.CPPTYPE_INT32, field.CPPTYPE_UINT32) else 2**63 - 1
    return max(-small, min(small, rng.choice(INTEGERS)))


def damaged(data: bytes, rng: random.Random) -> bytes:
    result = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 5])):
        place = rng.randrange(len(result))
        match rng.randrange(4):
            case 0:
                result[place] ^= 1 << rng.randrange(8)
            case 1:
                result[place] = rng.randrange(256)
            case 2:
                del result[place : place + rng.randrange(1, 20)]
            case 3:
                result[place:place] = result[place : place + rng.randrange(1, 20)]
    return bytes(result)


def session(rich: Path, seeds: range) -> set[str]:
    """Each seed is a model of damaged bytes, one of changed structure with external data beside it, and one without."""
    data, originals, codes = rich.read_bytes(), (onnx.load(rich, load_external_data=False), rich_model()), set()
    changed = rich.with_name("changed.onnx")
    for seed in seeds:
        rng = random.Random(seed)
        changed.write_bytes(damaged(data, rng))
        codes.add(outcome(changed))
        for original in originals:
            model = onnx.ModelProto()
            model.CopyFrom(original)
            for _ in range(rng.choice([1, 1, 2, 4])):
                mutate(model, rng)
            changed.write_bytes(model.SerializeToString())
            codes.add(outcome(changed))
    return codes


def test_the_model_itself(rich: Path):
    assert outcome(rich) == outcome(rich_model()) == "ok"


def test_mutations(rich: Path):
    assert {"E0102", "E0103", "E0106", "ok"} <= session(rich, range(150))


@pytest.mark.long
def test_a_session_of_mutations(rich: Path):
    start = int(os.environ.get("EDGEC_FUZZ_SEED", "1000"))
    assert {"E0101", "E0102", "E0103", "E0105", "E0106", "E0201", "ok"} <= session(rich, range(start, start + 6000))
