"""What users read when a model file is at fault: the exact text."""

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgec.frontend.onnx import read_onnx
from edgec.frontend.onnx.reader import NEWEST_OPSET, read_model
from edgec.graph.errors import UserError
from edgec.graph.interp import run
from edgec.graph.ir import Role
from edgec.tools.testing import models


def error_of(source: object, **arguments: object) -> str:
    with pytest.raises(UserError) as caught:
        read_onnx(source, **arguments)
    return str(caught.value)


def model_of(nodes: list[onnx.NodeProto], opset: int = 13, **initializers: np.ndarray) -> onnx.ModelProto:
    """x f32[2,3] -> y, through `nodes`."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3]) for name in ("x", "y"))
    tensors = [numpy_helper.from_array(array, name) for name, array in initializers.items()]
    graph = helper.make_graph(nodes, "g", [x], [y], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("own", 1)])


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "error[E0101]: the file is empty\n  --> m.onnx"),
        (b"PK\x03\x04 a zip file", "error[E0101]: the file is not an ONNX model\n  --> m.onnx"),
        (b"\x0a\x05hello", "error[E0101]: the file is not an ONNX model\n  --> m.onnx"),
        (
            models.small_cnn_onnx(0).SerializeToString()[:1000],
            "error[E0102]: the model ends early or is damaged (1000 bytes)\n  --> m.onnx\nhint: fetch the file again",
        ),
        (
            models.small_cnn_onnx(0).SerializeToString()[:2],
            "error[E0102]: the model ends before its graph (2 bytes)\n  --> m.onnx\nhint: fetch the file again",
        ),
        (
            onnx.ModelProto(ir_version=8, graph=models.small_cnn_onnx(0).graph).SerializeToString(),
            "error[E0102]: the model ends before its opset (201530 bytes)\n  --> m.onnx\nhint: fetch the file again",
        ),
    ],
    ids=["empty", "zip", "other protobuf", "truncated", "no graph", "no opset"],
)
def test_files_that_are_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, text: str):
    monkeypatch.chdir(tmp_path)
    Path("m.onnx").write_bytes(data)
    assert error_of("m.onnx") == text
    assert error_of(data) == text.replace("m.onnx", "the given model")


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    missing = "error[E0106]: the model cannot be read: No such file or directory\n  --> none.onnx"
    assert error_of("none.onnx") == missing
    assert error_of(Path(".")) == "error[E0106]: this is not a file\n  --> ."
    assert error_of("a\0b").startswith("error[E0106]: the model cannot be read: embedded null byte")


def test_a_file_above_the_limit_of_protobuf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with open("m.onnx", "wb") as file:
        file.truncate(2**31)  # sparse
    assert error_of("m.onnx") == (
        "error[E0107]: the file is larger than 2 GiB, the limit of protobuf\n  --> m.onnx\n"
        "hint: save the model with external data: onnx.save(model, path, save_as_external_data=True)"
    )


def test_opsets_out_of_range():
    old = model_of([helper.make_node("Relu", ["x"], ["y"])], opset=0)
    assert error_of(old) == (
        f"error[E0103]: the model has opset 0; edgec imports opsets 1 to {NEWEST_OPSET}\n  --> the given model\n"
        "hint: convert it with onnx.version_converter.convert_version"
    )
    new = model_of([helper.make_node("Relu", ["x"], ["y"])], opset=NEWEST_OPSET + 1)
    assert error_of(new).startswith(f"error[E0103]: the model has opset {NEWEST_OPSET + 1};")


def test_a_model_from_before_numpys_broadcasting_is_brought_up():
    """Opset 6 aligns the smaller operand at an axis."""
    add = helper.make_node("Add", ["x", "w"], ["y"], broadcast=1, axis=0)
    graph = helper.make_graph(
        [add],
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, (2, 3)),
            helper.make_tensor_value_info("w", TensorProto.FLOAT, (2,)),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (2, 3))],
        [numpy_helper.from_array(np.float32([10, 20]), "w")],
    )
    old = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 6)], ir_version=3)
    (y,) = run(read_onnx(old).programs["infer"], {"x": np.zeros((2, 3), np.float32)}).outputs.values()
    np.testing.assert_array_equal(y, [[10] * 3, [20] * 3])


def test_everything_that_cannot_be_imported_is_listed_at_once():
    model = model_of(
        [
            helper.make_node("Foo", ["x"], ["a"], "first"),
            helper.make_node("Relu", ["a"], ["b"], "behind the first"),
            helper.make_node("Bar", ["b"], ["c"], domain="own"),
            helper.make_node("Cast", ["x"], ["d"], "cast", to=TensorProto.STRING),
            helper.make_node("Add", ["x", "words"], ["e"], "add"),
            helper.make_node("TopK", ["x", "k"], ["f", "g"], "unused"),
            helper.make_node("Sum", ["c", "d", "e"], ["y"], "sum"),
        ],
        words=np.array(["a", "b"]),
        k=np.array([1]),
    )
    assert error_of(model) == (
        "error[E0103]: the model has 4 nodes that cannot be imported:\n"
        "  `first` (Foo, opset 13): the operator has no equivalent\n"
        "  `Bar:c` (Bar, opset 1): the operator belongs to the domain `own`\n"
        "  `cast` (Cast, opset 13): makes a tensor of dtype string\n"
        "  `add` (Add, opset 13): reads a tensor of dtype string\n"
        "  --> the given model"
    )


def test_operands_that_do_not_fit():
    model = model_of([helper.make_node("MatMul", ["x", "w"], ["y"], "dense")], w=np.ones((4, 3), np.float32))
    assert error_of(model) == (
        "error[E0201]: the model has 1 node with operands that do not fit:\n"
        "  `dense` (MatMul, opset 13): matmul(f32[2,3], f32[4,3]): inner extents 3 and 4 differ\n"
        "  --> the given model\n"
        "hint: check the given shapes: the model may be made for one size"
    )


def test_inputs_of_other_kinds():
    model = model_of([helper.make_node("Relu", ["x"], ["y"])])
    model.graph.input.append(helper.make_tensor_value_info("words", TensorProto.STRING, [1]))
    model.graph.input.append(helper.make_tensor_sequence_value_info("list", TensorProto.FLOAT, None))
    assert error_of(model) == (
        "error[E0103]: the model has inputs that cannot be imported:\n"
        "  input `words`: a tensor of dtype string\n"
        "  input `list`: a sequence\n"
        "  --> the given model"
    )


CYCLE = "error[E0102]: the nodes read one another in a circle: `A` -> `B` -> `A`"


@pytest.mark.parametrize(
    ("nodes", "text"),
    [
        ([("Relu", ["z"], ["y"])], "error[E0102]: node `Relu:y` reads `z`, which nothing before it defines"),
        ([("Relu", ["x"], ["z"])], "error[E0102]: output `y` reads `y`, which nothing before it defines"),
        ([("Relu", ["x"], ["y"]), ("Exp", ["x"], ["y"])], "error[E0102]: `y` is defined twice"),
        ([("Relu", ["b"], ["a"], "A"), ("Exp", ["a"], ["b"], "B"), ("Neg", ["b"], ["y"])], CYCLE),
        ([("Relu", ["x"], ["x"]), ("Exp", ["x"], ["y"])], "error[E0102]: `x` is defined twice"),
    ],
)
def test_broken_structure(nodes: list[tuple], text: str):
    assert error_of(model_of([helper.make_node(*node) for node in nodes])).startswith(text)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda t: t.dims.__setitem__(0, 5), "tensor `w` of shape [5, 3] needs 60 bytes, the file has 24"),
        (lambda t: t.dims.__setitem__(0, -2), "tensor `w` has the shape [-2, 3]"),
        (lambda t: t.dims.__setitem__(0, 2**62), "tensor `w` of shape [4611686018427387904, 3] needs"),
        (lambda t: t.ClearField("raw_data"), "tensor `w` of shape [2, 3] needs 6 elements, the file has 0"),
    ],
)
def test_tensors_whose_data_does_not_fit(change, text: str):
    model = model_of([helper.make_node("Add", ["x", "w"], ["y"])], w=np.ones((2, 3), np.float32))
    change(model.graph.initializer[0])
    assert error_of(model).startswith(f"error[E0102]: {text}")


@pytest.mark.parametrize(
    "dtype", "float32 float64 float16 int8 uint8 int16 uint16 int32 int64 uint32 uint64 bool".split()
)
@pytest.mark.parametrize("raw", [True, False])
def test_tensor_encodings(dtype: str, raw: bool):
    array = np.array([[0, 1, 100], [2, 1, 0]]).astype(dtype)
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    vals = array.tobytes() if raw else array.reshape(-1).tolist()
    model = model_of([helper.make_node("Relu", ["x"], ["y"])])
    model.graph.initializer.append(helper.make_tensor("t", kind, array.shape, vals, raw=raw))
    read = read_model(model).initializers["t"]
    np.testing.assert_array_equal(read, array)
    assert read.dtype == array.dtype and not read.flags.writeable


def test_external_data_is_mapped(tmp_path: Path):
    onnx.save(models.small_cnn_onnx(3), tmp_path / "m.onnx", save_as_external_data=True, location="d", size_threshold=0)
    graph = read_onnx(tmp_path / "m.onnx", batch=1).programs["infer"]
    for name, array in models.small_cnn_parameters(3).items():
        data = graph.leaves[name].data
        np.testing.assert_array_equal(data, array)
        while isinstance(data.base, np.ndarray):
            data = data.base
        assert isinstance(data, np.memmap)


def external_model(tmp_path: Path) -> onnx.ModelProto:
    path = tmp_path / "m.onnx"
    onnx.save(models.small_cnn_onnx(3), path, save_as_external_data=True, location="d", size_threshold=0)
    return onnx.load(path, load_external_data=False)


@pytest.mark.parametrize("name", ["a\x1b[2J", "line\nbreak", "\x7f"])
def test_names_that_do_things_to_terminals(name: str):
    relu = helper.make_node("Relu", ["x"], [name])
    assert "has control characters" in error_of(model_of([relu, helper.make_node("Exp", [name], ["y"])]))
    assert "`no?de`" in error_of(model_of([helper.make_node("Foo", ["x"], ["y"], "no\x1bde")]))


def test_more_operands_than_the_standard_knows():
    model = model_of([helper.make_node("Relu", ["x", "x"], ["a"]), helper.make_node("Exp", ["a"], ["y", "z"])])
    assert "(Relu, opset 13): has 2 inputs; the standard gives it at most 1" in error_of(model)
    assert "(Exp, opset 13): has 2 outputs; the standard gives it at most 1" in error_of(model)


@pytest.mark.parametrize("flat", [True, False])
def test_sparse_initializers_are_constants(flat: bool):
    places = np.array([1, 5]) if flat else np.array([[0, 1], [1, 2]])
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(np.float32([2, 3]), "w"), numpy_helper.from_array(places), [2, 3]
    )
    model = model_of([helper.make_node("Add", ["x", "w"], ["y"])])
    model.graph.sparse_initializer.append(sparse)
    graph = read_onnx(model).programs["infer"]
    assert graph.leaves["w"].role is Role.CONSTANT
    np.testing.assert_array_equal(graph.leaves["w"].data, [[0, 2, 0], [0, 0, 3]])
    sparse = model.graph.sparse_initializer[0]
    sparse.indices.CopyFrom(numpy_helper.from_array(places + 4))
    assert error_of(model).startswith("error[E0102]: the sparse tensor `w` of shape [2, 3] has indices that do not fit")
    sparse.dims[:] = [2**30, 2**30]
    assert "a sparse tensor of 1152921504606846976 elements is too large" in error_of(model)


def test_external_data_that_is_missing_or_short(tmp_path: Path):
    model = external_model(tmp_path)
    assert error_of(model.SerializeToString()) == (
        "error[E0106]: the model keeps tensors in the file `d`, whose folder is unknown\n  --> the given model\n"
        "hint: give the path of the model instead of its bytes"
    )
    with open(tmp_path / "d", "r+b") as file:
        file.truncate(100)
    text = "error[E0102]: the external data file `d` has 100 bytes, the model needs"
    assert error_of(tmp_path / "m.onnx").startswith(text)
    (tmp_path / "d").unlink()
    assert error_of(tmp_path / "m.onnx").startswith("error[E0106]: the external data file `")


@pytest.mark.parametrize("location", ["/etc/passwd", "../d", "a/../../d", "", "d\0"])
def test_external_data_stays_in_the_folder(tmp_path: Path, location: str):
    model = external_model(tmp_path)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    shown = location.replace("\0", "\\x00")
    text = f"error[E0106]: external data `{shown}` lies outside the model's folder"
    assert error_of(tmp_path / "m.onnx").startswith(text)


def test_links_of_external_data(tmp_path: Path):
    """As caches of model hubs have them; a link to anywhere else is refused."""
    external_model(tmp_path)
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    snapshot.mkdir()
    for name in ("m.onnx", "d"):
        (tmp_path / name).rename(blobs / f"hash of {name}")
        (snapshot / name).symlink_to(blobs / f"hash of {name}")
    assert read_onnx(snapshot / "m.onnx", batch=1).programs["infer"].by_role(Role.PARAM)
    (blobs / "hash of d").rename(tmp_path / "elsewhere")
    (snapshot / "d").unlink()
    (snapshot / "d").symlink_to(tmp_path / "elsewhere")
    text = "error[E0106]: external data `d` lies outside the model's folder"
    assert error_of(snapshot / "m.onnx").startswith(text)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_external_data_that_is_no_file(tmp_path: Path, make):
    external_model(tmp_path)
    (tmp_path / "d").unlink()
    make(tmp_path / "d")
    assert "is not a file" in error_of(tmp_path / "m.onnx")


def test_external_data_of_another_length(tmp_path: Path):
    model = external_model(tmp_path)
    (entry,) = (e for e in model.graph.initializer[0].external_data if e.key == "length")
    entry.value = "4"
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    assert "bytes, the file has 4" in error_of(tmp_path / "m.onnx")


def test_a_path_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "m.onnx"
    onnx.save(models.small_cnn_onnx(3), path)
    reads = []
    monkeypatch.setattr(Path, "read_bytes", lambda p: reads.append(p) or open(p, "rb").read())
    assert read_onnx(path, batch=1).programs["infer"].by_role(Role.PARAM)
    assert reads == [path]
