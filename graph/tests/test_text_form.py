"""Text form and parser: what is printed parses back to an equal program; what does not parse is said with its place."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgec.graph.equal import graph_difference, module_difference
from edgec.graph.errors import UserError
from edgec.graph.ir import Count, Graph, Module, Role
from edgec.graph.ops import Add, Clip, Concat, Conv2d, Pad, ReduceSum, Relu, Reshape, SgdUpdate, SoftmaxCrossEntropy
from edgec.graph.parse import parse_graph, parse_module
from edgec.graph.text import attributes_text, data_by_hash, data_hash, leaf_text, node_text, print_graph, print_module
from edgec.graph.types import DType, TensorType, tensor
from edgec.graph.verify import verify_graph

EXAMPLE = """\
graph train {
  input %x: f32[1,3,8,8]
  param %conv1.weight: f32[4,3,3,3] = #@WEIGHT trainable
  state %v: f32[4,3,3,3] = #@VELOCITY
  constant %c: f32[2] = [0.5, 0.1]
  scalar %lr: f32[]
  %y: f32[1,4,4,4] = conv2d(%x, %conv1.weight) {strides=(2,2), pads=(1,1,1,1)} @"Conv_0"
  %"a b": f32[1,4,4,4] = clip(%y) {low=-inf, high=6.0}
  %sum: f32[] = reduce_sum(%"a b") {axes=(0,1,2,3)}
  %w.new: f32[4,3,3,3], %v.new: f32[4,3,3,3] = sgd_update(%conv1.weight, %conv1.weight, %lr, %v) {momentum=0.9}
  output "loss" = %sum
  update %conv1.weight = %w.new
  update %v = %v.new
  loss "loss"
}
"""


def example() -> tuple[str, dict[str, np.ndarray]]:
    weight = np.arange(108, dtype=np.float32).reshape(4, 3, 3, 3)
    velocity = np.zeros((4, 3, 3, 3), np.float32)
    text = EXAMPLE.replace("@WEIGHT", data_hash(weight)).replace("@VELOCITY", data_hash(velocity))
    return text, {data_hash(weight): weight, data_hash(velocity): velocity}


def round_trip(graph: Graph) -> Graph:
    """Parse what is printed; it verifies, is equal, and prints the same."""
    text = print_graph(graph)
    again = parse_graph(text, data_by_hash(graph))
    assert graph_difference(graph, again) is None
    assert print_graph(again) == text
    verify_graph(again)
    return again


def test_every_kind_of_line_round_trips():
    text, data = example()
    graph = parse_graph(text, data)
    assert print_graph(graph) == text
    again = round_trip(graph)
    assert again.leaves["conv1.weight"].trainable and not again.leaves["v"].trainable
    assert again.leaves["conv1.weight"].data is data[data_hash(graph.leaves["conv1.weight"].data)]
    assert again.nodes[0].source == "Conv_0"
    assert again.nodes[0].op == Conv2d(strides=(2, 2), pads=(1, 1, 1, 1))
    assert again.loss == "loss"
    assert {leaf.name: value.name for leaf, value in again.updates.items()} == {"conv1.weight": "w.new", "v": "v.new"}


def test_leaves_whose_data_is_not_given_have_none():
    text, _ = example()
    graph = parse_graph(text)
    assert graph.leaves["conv1.weight"].data is None
    np.testing.assert_array_equal(graph.leaves["c"].data, np.array([0.5, 0.1], np.float32))


ODD_NAMES = ["a b", "", '"', "\\", "%x", "a/b:0", "ünï", "line\nbreak", "tab\t", "x,y", "\ud800", "//c", "graph"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_round_trip(name):
    graph = Graph(name)
    x = graph.add_leaf(Role.PARAM, name, tensor(DType.F32, 2), trainable=True)
    (y,) = graph.emit(Relu(), x, names=[name + "!"], source=name + "?")
    graph.outputs[name] = y
    graph.updates[x] = y
    again = round_trip(graph)
    assert (again.name, list(again.outputs), again.nodes[0].source) == (name, [name], name + "?")
    assert again.nodes[0].output.name == name + "!"


@given(name=st.text(), word=st.sampled_from(["inf", "nan", "true", "input", "loss", "f32", "2x", "-inf"]))
def test_any_name_round_trips(name, word):
    graph = Graph(word)
    x = graph.add_leaf(Role.INPUT, name, tensor(DType.F32))
    graph.outputs[name] = graph.emit1(Relu(), x, name=word if word != name else "y", source=name)
    round_trip(graph)


def test_a_program_of_nothing():
    round_trip(Graph("empty"))


@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (1, 1, 1, 1, 1, 1)])
@pytest.mark.parametrize("dtype", list(DType), ids=lambda d: d.value)
def test_shapes_and_dtypes_round_trip(shape, dtype):
    graph = Graph("g")
    for role in (Role.INPUT, Role.STATE, Role.CONSTANT):
        data = None if role is Role.INPUT else np.ones(shape, dtype.numpy)
        graph.outputs[role.value] = graph.add_leaf(role, role.value, TensorType(dtype, shape), data=data)
    round_trip(graph)


@pytest.mark.parametrize(
    "array",
    [
        np.array([0.1, -0.0, np.inf, -np.inf, 1e-45, 3.4028235e38, 16777217.0], np.float32),
        np.array([0.1, 5e-324, 1.7976931348623157e308], np.float64),
        np.array([0.1, 6e-8, 65504.0], np.float16),
        np.array([0.1, 1e-40, 3e38], ml_dtypes.bfloat16),
        np.array([-(2**63), 2**63 - 1], np.int64),
        np.array([0, 255], np.uint8),
        np.array([[True], [False]]),
    ],
    ids=lambda a: a.dtype.name,
)
def test_small_constants_are_written_out_to_the_bit(array):
    graph = Graph("g")
    graph.outputs["y"] = graph.constant(array)
    text = print_graph(graph)
    assert "#" not in text
    again = parse_graph(text)
    assert again.leaves["c"].data.tobytes() == array.tobytes()
    assert again.leaves["c"].data.dtype == array.dtype
    assert graph_difference(graph, again) is None


@given(bits=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=8))
def test_any_f32_constant_round_trips_to_the_bit(bits):
    graph = Graph("g")
    graph.outputs["y"] = graph.constant(np.array(bits, np.uint32).view(np.float32))
    round_trip(graph)


def test_nan_is_written_out_unless_its_bits_would_be_lost():
    graph = Graph("g")
    plain = graph.constant(np.array([np.nan], np.float32), "plain")
    odd = graph.constant(np.array([0x7FC00001], np.uint32).view(np.float32), "odd")
    assert leaf_text(plain) == "constant %plain: f32[1] = [nan]"
    assert leaf_text(odd).startswith("constant %odd: f32[1] = #")
    graph.outputs |= {"a": plain, "b": odd}
    round_trip(graph)


def test_large_constants_stand_by_hash():
    graph = Graph("g")
    graph.outputs["y"] = graph.constant(np.arange(9.0))
    assert f"= #{data_hash(np.arange(9.0))}\n" in print_graph(graph)
    round_trip(graph)


def test_hashes_tell_dtypes_and_shapes_apart():
    zeros = [np.zeros((2, 3), np.float32), np.zeros((3, 2), np.float32), np.zeros((2, 3), np.int32)]
    assert len({data_hash(array) for array in zeros}) == 3
    fortran = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    assert data_hash(fortran) == data_hash(np.arange(6.0).reshape(2, 3))


@pytest.mark.parametrize(
    ("op", "text"),
    [
        (Relu(), ""),
        (Conv2d(), ""),
        (Conv2d(groups=4), "{groups=4}"),
        (Clip(-np.inf, np.inf), "{low=-inf, high=inf}"),
        (Clip(0, 6), "{low=0.0, high=6.0}"),
        (Pad((0,), (1,), np.nan), "{low=(0), high=(1), value=nan}"),
        (Pad((), ()), "{low=(), high=()}"),
        (Pad((0, 0), (1, 1), -0.0), "{low=(0,0), high=(1,1), value=-0.0}"),
        (Clip(1e-8, 1e300), "{low=1e-08, high=1e+300}"),
        (ReduceSum((1, 2), keepdims=True), "{axes=(1,2), keepdims=true}"),
        (SgdUpdate(momentum=0.9, nesterov=True), "{momentum=0.9, nesterov=true}"),
    ],
    ids=str,
)
def test_attributes(op, text):
    assert attributes_text(op) == text


@pytest.mark.parametrize(
    ("op", "shape"),
    [(Pad((0,), (1,), np.nan), (2,)), (Pad((0,), (1,), -np.inf), (2,)), (Clip(-np.inf, 0.1), (2,)), (Pad((), ()), ())]
    + [(Pad((0, 0), (1, 1), -0.0), (2, 2)), (ReduceSum((0,), keepdims=True), (2,)), (Reshape(()), (1,))],
    ids=str,
)
def test_attributes_round_trip(op, shape):
    graph = Graph("g")
    graph.outputs["y"] = graph.emit1(op, graph.add_leaf(Role.INPUT, "x", tensor(DType.F32, *shape)))
    again = round_trip(graph)
    assert attributes_text(again.nodes[0].op) == attributes_text(op)


def test_integers_stand_for_floats_where_a_float_is_declared():
    graph = parse_graph("graph g { input %x: f32[2] %y: f32[2] = clip(%x) {low=0, high=6} }")
    assert [type(v) for v in graph.nodes[0].op.attributes().values()] == [float, float]


def test_comments_and_layout_are_free():
    graph = parse_graph('graph g{//one\ninput%x:f32[2]//two\n\n%y : f32 [ 2 ]\n= relu ( %x ) output"y"=%y}//three')
    assert print_graph(graph) == 'graph g {\n  input %x: f32[2]\n  %y: f32[2] = relu(%x)\n  output "y" = %y\n}\n'


def test_nodes_of_several_results_and_operands():
    graph = Graph("g")
    logits = graph.add_leaf(Role.INPUT, "logits", tensor(DType.F32, 2, 3))
    targets = graph.add_leaf(Role.INPUT, "targets", tensor(DType.F32, 2, 3))
    _, probabilities = graph.emit(SoftmaxCrossEntropy(), logits, targets, names=["losses", "p"])
    graph.outputs["p"] = graph.emit1(Concat(0), probabilities, logits, probabilities)
    line = node_text(graph.nodes[0])
    assert line.text == "%losses: f32[2], %p: f32[2,3] = softmax_cross_entropy(%logits, %targets)"
    assert [line.text[a:b] for a, b in line.results] == ["%losses: f32[2]", "%p: f32[2,3]"]
    assert [line.text[a:b] for a, b in line.operands] == ["%logits", "%targets"]
    assert line.text[slice(*line.op)] == "softmax_cross_entropy"
    round_trip(graph)


def test_modules_round_trip():
    module = Module()
    for name in ("infer", "train"):
        graph = module.programs[name] = Graph(name)
        weight = graph.add_leaf(Role.PARAM, "w", tensor(DType.F32, 9), data=np.arange(9, dtype=np.float32))
        graph.outputs["y"] = graph.emit1(Add(), weight, weight)
    again = parse_module(print_module(module), data_by_hash(module))
    assert module_difference(module, again) is None
    assert again.programs["infer"].leaves["w"].data is again.programs["train"].leaves["w"].data
    assert parse_module("// nothing\n").programs == {}


def test_counted_outputs_round_trip():
    graph = Graph("g")
    x = graph.add_leaf(Role.INPUT, "x", tensor(DType.F32, 2, 3))
    graph.outputs["y"] = graph.emit1(Relu(), x)
    graph.outputs["n"] = graph.constant(np.array(2))
    graph.counts["y"] = Count("n", 1)
    assert 'output "y" = %relu counted by "n" along 1\n' in print_graph(graph)
    assert round_trip(graph).counts == graph.clone().counts == graph.counts


HEAD = "graph g {\n  input %x: f32[2,3]\n  param %w: f32[3]\n"

ERRORS = [
    ("", "expected graph, found end of text", "line 1, column 1"),
    (HEAD + '  output "y" = %x counted "n"\n}', "expected by, found", "line 4, column 27"),
    (HEAD + '  output "y" = %x counted by "n" along -1\n}', "-1 is not an extent", "line 4, column 40"),
    ("graph g {", "expected }|unexpected end of text", "line 1, column 10"),
    ("graph g { } extra", "expected end of text, found extra", "line 1, column 13"),
    (HEAD + "  ?\n}", "unexpected character '\\?'", r"line 4, column 3: \?"),
    (HEAD + "  foo %y: f32[2]\n}", "unexpected foo(.|\n)*hint: a line begins with", "line 4, column 3: foo"),
    (HEAD + "  input %y f32[2]\n}", "expected :, found f32", "line 4, column 12"),
    (HEAD + "  input %y: f99[2]\n}", "unknown dtype f99(.|\n)*hint: dtypes are f16, bf16", "line 4, column 13"),
    (HEAD + "  input %y: f32[-1]\n}", "-1 is not an extent(.|\n)*static", "line 4, column 17"),
    (HEAD + "  input %y: f32[2.5]\n}", "2.5 is not an extent", "line 4, column 17"),
    (HEAD + "  input %y: f32[N]\n}", "expected number, found N", "line 4, column 17"),
    (HEAD + "  input %x: f32[2]\n}", "value `x` is defined twice", "line 4, column 9"),
    (HEAD + '  input %"\\q": f32[2]\n}', "wrong escape", "line 4, column 9"),
    (HEAD + "  %y: f32[2,3] = relu(%z)\n}", "value %z is not defined above", "line 4, column 23"),
    (HEAD + "  %y: f32[2,3] = relu(%y)\n}", "value %y is not defined above", "line 4, column 23"),
    (HEAD + "  %y: f32[2,3] = rulu(%x)\n}", "unknown op rulu", "line 4, column 18"),
    (HEAD + "  %y: f32[2,3] = relu(%x %x)\n}", "expected ,, found %x", "line 4, column 26"),
    (HEAD + "  %y: f32[2,3] = relu(%x,)\n}", r"expected value, found \)", "line 4, column 26"),
    (HEAD + "  %y: f32[3,2] = relu(%x)\n}", r"relu gives f32\[2,3\], the text says f32\[3,2\]", "line 4, column 3"),
    (HEAD + "  %y: f32[2], %y: f32[2] = relu(%x)\n}", "different names", "line 4, column 3"),
    (HEAD + "  %y: f32[2,3], %z: f32[2] = relu(%x)\n}", r"the text says f32\[2,3\], f32\[2\]", "line 4, column 3"),
    (HEAD + "  %y: f32[2] = clip(%x)\n}", "clip needs low, high", "line 4, column 16"),
    (HEAD + "  %y: f32[2] = clip(%x) {low=0, lo=1}\n}", "lo of clip is unknown(.|\n)*clip has low, high", "column 33"),
    (HEAD + "  %y: f32[2] = clip(%x) {low=0, low=1}\n}", "low of clip is given twice", "line 4, column 33"),
    (HEAD + "  %y: f32[2] = relu(%x) {low=0}\n}", "relu has no attributes", "line 4, column 26"),
    (HEAD + "  %y: f32[2] = clip(%x) {low=zero}\n}", "expected number, found zero", "line 4, column 30"),
    (HEAD + '  %y: f32[2] = clip(%x) {low="a", high=1}\n}', "attribute low of clip is not float", "line 4, column 30"),
    (HEAD + "  %y: f32[6] = reshape(%x) {shape=6}\n}", r"shape of reshape is not tuple\[int, ...\]", "column 35"),
    (HEAD + "  %y: f32[6] = reshape(%x) {shape=(6.0)}\n}", "shape of reshape is not tuple", "line 4, column 35"),
    (HEAD + "  %y: f32[] = reduce_sum(%x) {axes=(0), keepdims=1}\n}", "keepdims .* is not bool", "line 4, column 50"),
    (HEAD + "  %y: f32[] = conv2d(%x, %x) {strides=(1,1,1)}\n}", r"strides .* not tuple\[int, int\]", "column 39"),
    (HEAD + "  %y: f32[2] = reshape(%x) {shape=(6}\n}", "expected ,, found }", "line 4, column 37"),
    (HEAD + "  %y: f32[2,3] = relu(%x) @Conv\n}", "expected string, found Conv", "line 4, column 28"),
    (HEAD + "  constant %c: f32[2] = [1.0]\n}", r"do not make up a f32\[2\]", "line 4, column 25"),
    (HEAD + "  constant %c: i32[1] = [1.5]\n}", r"do not make up a i32\[1\]", "line 4, column 25"),
    (HEAD + "  constant %c: u8[1] = [256]\n}", r"do not make up a u8\[1\]", "line 4, column 24"),
    (HEAD + "  constant %c: bool[1] = [1]\n}", r"do not make up a bool\[1\]", "line 4, column 26"),
    (HEAD + "  constant %c: f32[1] = [x]\n}", "expected a number, true or false, found x", "line 4, column 26"),
    (HEAD + "  constant %c: f32[1] = #12\n}", "unexpected character '#'", "line 4, column 25"),
    (HEAD + '  output "y" = %y\n}', "value %y is not defined above", "line 4, column 16"),
    (HEAD + '  output "x" = %x\n  output "x" = %x\n}', "output 'x' is defined twice", "line 5, column 3"),
    (HEAD + "  update %x = %x\n}", "`x` is neither param nor state", "line 4, column 3"),
    (HEAD + "  update %w = %w\n  update %w = %w\n}", "`w` is updated twice", "line 5, column 3"),
    (HEAD + "  loss %x\n}", "expected string, found %x", "line 4, column 8"),
]


@pytest.mark.parametrize(("text", "message", "where"), ERRORS)
def test_errors_say_what_and_where(text, message, where):
    with pytest.raises(UserError, match=message) as caught:
        parse_graph(text)
    assert caught.value.code == "E0202"
    with pytest.raises(UserError, match=where):
        raise caught.value


def test_type_errors_of_ops_keep_their_code_and_hint():
    with pytest.raises(UserError, match="extents 2 and 3 meet") as caught:
        parse_graph("graph g {\n  input %x: f32[2]\n  input %y: f32[3]\n  %z: f32[2] = add(%x, %y)\n}")
    assert caught.value.code == "E0201"
    assert caught.value.where == "line 4, column 16: %z: f32[2] = add(%x, %y)"
    assert "align at the last axis" in caught.value.hint


def test_data_of_another_type_is_refused():
    text, data = example()
    wrong = {name: array.astype(np.float64) for name, array in data.items()}
    with pytest.raises(UserError, match="the data behind #.* is float64"):
        parse_graph(text, wrong)


def test_programs_of_a_module_have_different_names():
    with pytest.raises(UserError, match="program `g` is defined twice") as caught:
        parse_module("graph g { }\ngraph g { }")
    assert caught.value.where.startswith("line 2, column 1")


@given(position=st.integers(0, len(EXAMPLE)), length=st.integers(0, 12), insert=st.text(max_size=3))
def test_damaged_text_parses_or_is_refused(position, length, insert):
    text, data = example()
    damaged = text[:position] + insert + text[position + length :]
    try:
        graph = parse_graph(damaged, data)
    except UserError as error:
        assert error.code in ("E0201", "E0202") and error.where
    else:
        assert isinstance(graph, Graph)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"graph g {{ input %x: f32[1]\n %y: f32[1] = reshape(%x) {{shape={'(' * 100_000}", "nested more than 8 deep"),
        (f"graph g {{ input %x: f32[{'9' * 5000}] }}", "a number of 5000 digits"),
        (
            f"graph g {{ input %x: f32[1]\n %y: f32[1] = clip(%x) {{low={'9' * 400}, high=1}} }}",
            "a number of 400 digits",
        ),
        ("graph g { constant %x: f32[99999999999] = [1] }", "these elements do not make up"),
    ],
    ids=["nested", "digits", "digits of an attribute", "elements"],
)
def test_texts_without_measure(text: str, message: str):
    with pytest.raises(UserError, match=message) as caught:
        parse_graph(text)
    assert caught.value.code == "E0202" and len(str(caught.value)) < 1000
