"""canonicalise: each rule before and after, and what must not be touched."""

import pytest

from edgec.compiler.passbase import Options
from edgec.compiler.passes.canonicalise import canonicalise
from edgec.compiler.train import Train
from edgec.graph.ir import Graph, Module, Role
from edgec.graph.ops import ALL_OPS
from edgec.graph.parse import parse_module
from edgec.graph.types import DType, tensor
from edgec.tools.testing.pass_check import check_pass


def program(body: str, output: str = "y", leaves: str = "") -> str:
    return f'graph infer {{\n input %x: f32[1,4,1,6]\n{leaves}\n{body}\n output "y" = %{output}\n}}'


RULES = {
    "reshape to the same shape": ("%y: f32[1,4,1,6] = reshape(%x) {shape=(1,4,1,6)}", None),
    "slice of everything": ("%y: f32[1,4,1,6] = slice(%x) {starts=(0,0,0,0), ends=(1,4,1,6), steps=(1,1,1,1)}", None),
    "padding of nothing": ("%y: f32[1,4,1,6] = pad(%x) {low=(0,0,0,0), high=(0,0,0,0)}", None),
    "broadcast to the same shape": ("%y: f32[1,4,1,6] = broadcast_to(%x) {shape=(1,4,1,6)}", None),
    "cast to the same type": ('%y: f32[1,4,1,6] = cast(%x) {to="f32"}', None),
    "concatenation of one": ("%y: f32[1,4,1,6] = concat(%x) {axis=1}", None),
    "transposition of nothing": ("%y: f32[1,4,1,6] = transpose(%x) {perm=(0,1,2,3)}", None),
    "reduction over no axes": ("%y: f32[1,4,1,6] = reduce_sum(%x) {axes=()}", None),
    "clip to everything": ("%y: f32[1,4,1,6] = clip(%x) {low=-inf, high=inf}", None),
    "pool of one": ("%y: f32[1,4,1,6] = max_pool2d(%x) {kernel_size=(1,1)}", None),
    "relu of relu": (
        "%a: f32[1,4,1,6] = relu(%x)\n%y: f32[1,4,1,6] = relu(%a)",
        "%y: f32[1,4,1,6] = relu(%x)",
    ),
    "reshape of reshape": (
        "%a: f32[24] = reshape(%x) {shape=(24)}\n%y: f32[4,6] = reshape(%a) {shape=(4,6)}",
        "%y: f32[4,6] = reshape(%x) {shape=(4,6)}",
    ),
    "there and back": (
        "%a: f32[24] = reshape(%x) {shape=(24)}\n%y: f32[1,4,1,6] = reshape(%a) {shape=(1,4,1,6)}",
        None,
    ),
    "transpose of transpose": (
        "%a: f32[1,6,1,4] = transpose(%x) {perm=(0,3,2,1)}\n%y: f32[1,6,1,4] = transpose(%a) {perm=(2,1,0,3)}",
        "%y: f32[1,6,1,4] = transpose(%x) {perm=(2,3,0,1)}",
    ),
    "transposition of unit axes": (
        "%y: f32[1,1,4,6] = transpose(%x) {perm=(2,0,1,3)}",
        "%y: f32[1,1,4,6] = reshape(%x) {shape=(1,1,4,6)}",
    ),
    "mean over unit axes": (
        "%y: f32[4,6] = reduce_mean(%x) {axes=(0,2)}",
        "%y: f32[4,6] = reshape(%x) {shape=(4,6)}",
    ),
    "maximum of relus": (
        "%a: f32[1,4,1,6] = relu(%x)\n%y: f32[1,4,1,3] = max_pool2d(%a) {kernel_size=(1,2), strides=(1,2)}",
        "%a: f32[1,4,1,3] = max_pool2d(%x) {kernel_size=(1,2), strides=(1,2)}\n%y: f32[1,4,1,3] = relu(%a)",
    ),
    "maximum of clips": (
        "%a: f32[1,4,1,6] = clip(%x) {low=-1.0, high=6.0}\n"
        "%y: f32[1,4,2,6] = max_pool2d(%a) {kernel_size=(2,1), pads=(1,0,1,0)}",
        "%a: f32[1,4,2,6] = max_pool2d(%x) {kernel_size=(2,1), pads=(1,0,1,0)}\n"
        "%y: f32[1,4,2,6] = clip(%a) {low=-1.0, high=6.0}",
    ),
    "global average pool": (
        "%y: f32[1,4,1,1] = avg_pool2d(%x) {kernel_size=(1,6)}",
        "%y: f32[1,4,1,1] = reduce_mean(%x) {axes=(2,3), keepdims=true}",
    ),
}


@pytest.mark.parametrize(
    ("op", "kind", "number"),
    [("sub", "i64", 0), ("bit_xor", "i64", 0), ("mod", "i64", 0), ("less", "bool", 0), ("equal", "bool", 1)],
)
def test_what_a_value_and_itself_make_is_known(op: str, kind: str, number: int) -> None:
    graph = Graph("infer")
    n = graph.add_leaf(Role.INPUT, "n", tensor(DType.I64, 5))
    graph.outputs["y"] = graph.emit1({op_class.name: op_class for op_class in ALL_OPS}[op](), n, n)
    canonicalise(Module({"infer": graph}), Options())
    (node,) = graph.nodes
    assert node.op.name == "broadcast_to" and node.output.type == tensor(DType(kind), 5)
    assert node.inputs[0].data == number


def test_a_float_may_differ_from_itself() -> None:
    for op, kind in (("sub", "f32[1,4,1,6]"), ("equal", "bool[1,4,1,6]")):
        text = program(f"%y: {kind} = {op}(%x, %x)")
        check_pass(canonicalise, text, text)


@pytest.mark.parametrize(("before", "after"), RULES.values(), ids=RULES)
def test_rule(before: str, after: str | None) -> None:
    check_pass(canonicalise, program(before), program("", "x") if after is None else program(after))


NEUTRAL = {
    "x + 0": ("%y: f32[1,4,1,6] = add(%x, %zero)", True),
    "0 + x": ("%y: f32[1,4,1,6] = add(%zero, %x)", True),
    "x - 0": ("%y: f32[1,4,1,6] = sub(%x, %zero)", True),
    "x * 1": ("%y: f32[1,4,1,6] = mul(%x, %ones)", True),
    "1 * x": ("%y: f32[1,4,1,6] = mul(%ones, %x)", True),
    "x / 1": ("%y: f32[1,4,1,6] = div(%x, %ones)", True),
    "0 - x": ("%y: f32[1,4,1,6] = sub(%zero, %x)", False),
    "1 / x": ("%y: f32[1,4,1,6] = div(%ones, %x)", False),
    "x + 1": ("%y: f32[1,4,1,6] = add(%x, %ones)", False),
    "a constant that broadcasts": ("%y: f32[3,4,1,6] = add(%x, %tall)", False),
    "a parameter of zeros": ("%y: f32[1,4,1,6] = add(%x, %p)", False),
}


@pytest.mark.parametrize(("body", "dropped"), NEUTRAL.values(), ids=NEUTRAL)
def test_neutral_operands(body: str, dropped: bool) -> None:
    leaves = """
      constant %zero: f32[] = [0.0]
      constant %ones: f32[6] = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
      constant %tall: f32[3,1,1,1] = [0.0, 0.0, 0.0]
      param %p: f32[1] = [0.0]
    """
    before = program(body, leaves=leaves)
    check_pass(canonicalise, before, program("", "x", leaves) if dropped else before)


def test_elementwise_ops_broadcast_by_themselves_unless_the_shape_comes_from_the_broadcast() -> None:
    leaves = "param %g: f32[4,1,1]"
    check_pass(
        canonicalise,
        program(
            """
            %wide: f32[1,4,1,6] = broadcast_to(%g) {shape=(1,4,1,6)}
            %a: f32[1,4,1,6] = mul(%wide, %x)
            %tall: f32[2,4,1,6] = broadcast_to(%x) {shape=(2,4,1,6)}
            %y: f32[2,4,1,6] = add(%a, %tall)
            """,
            leaves=leaves,
        ),
        program(
            """
            %a: f32[1,4,1,6] = mul(%g, %x)
            %tall: f32[2,4,1,6] = broadcast_to(%x) {shape=(2,4,1,6)}
            %y: f32[2,4,1,6] = add(%a, %tall)
            """,
            leaves=leaves,
        ),
    )


def test_a_product_with_a_matrix_is_flat() -> None:
    leaves = "param %w: f32[6,3]"
    check_pass(
        canonicalise,
        program("%y: f32[1,4,1,3] = matmul(%x, %w)", leaves=leaves),
        program(
            """
            %flat: f32[4,6] = reshape(%x) {shape=(4,6)}
            %p: f32[4,3] = matmul(%flat, %w)
            %y: f32[1,4,1,3] = reshape(%p) {shape=(1,4,1,3)}
            """,
            leaves=leaves,
        ),
    )


def test_a_transposed_operand_is_an_attribute_of_the_product() -> None:
    leaves = "param %w: f32[3,6]"
    check_pass(
        canonicalise,
        program("%t: f32[6,3] = transpose(%w) {perm=(1,0)}\n%y: f32[1,4,1,3] = matmul(%x, %t)", leaves=leaves),
        program(
            """
            %flat: f32[4,6] = reshape(%x) {shape=(4,6)}
            %p: f32[4,3] = matmul(%flat, %w) {transpose_b=true}
            %y: f32[1,4,1,3] = reshape(%p) {shape=(1,4,1,3)}
            """,
            leaves=leaves,
        ),
    )


@pytest.mark.parametrize("kind", ["", " trainable"])
def test_a_frozen_weight_under_another_shape_is_not_transposed_for_its_many_readers(kind: str) -> None:
    """As recurrent layers of ONNX read theirs in every step; one that is trained is transposed once for all."""
    leaves = f"param %w: f32[1,6,6]{kind}\ninput %v: f32[4,6]"
    flat = "%f: f32[6,6] = reshape(%w) {shape=(6,6)}\n"
    before = program(
        f"{flat}%t: f32[6,6] = transpose(%f) {{perm=(1,0)}}\n%a: f32[4,6] = matmul(%v, %t)\n"
        "%y: f32[4,6] = matmul(%a, %t)",
        leaves=leaves,
    )
    after = program(
        f"{flat}%a: f32[4,6] = matmul(%v, %f) {{transpose_b=true}}\n%y: f32[4,6] = matmul(%a, %f) {{transpose_b=true}}",
        leaves=leaves,
    )
    check_pass(canonicalise, before, before if kind else after)


def test_what_has_other_readers_stays() -> None:
    text = program(
        """
        %a: f32[24] = reshape(%x) {shape=(24)}
        %b: f32[24] = relu(%a)
        %y: f32[24] = add(%a, %b)
        """
    )
    check_pass(canonicalise, text, text)


FINAL_BATCH = ("transposition of unit axes", "mean over unit axes")


@pytest.mark.parametrize("rule", FINAL_BATCH)
def test_a_batch_of_one_is_not_lost_before_training_programs_are_made(rule: str) -> None:
    before = program(RULES[rule][0])
    check_pass(canonicalise, before, before, Options(train=Train(batch=2)))


def test_a_relu_that_others_read_stays_before_the_pool() -> None:
    text = program("%a: f32[1,4,1,6] = relu(%x)\n%y: f32[1,4,1,3] = max_pool2d(%a) {kernel_size=(1,2), strides=(1,2)}")
    text = text.replace("\n}", '\n output "a" = %a\n}')
    check_pass(canonicalise, text, text)


def test_products_are_flattened_once_training_programs_are_made() -> None:
    leaves = "param %w: f32[6,3]"
    text = program("%y: f32[1,4,1,3] = matmul(%x, %w)", leaves=leaves)
    check_pass(canonicalise, text, text, Options(train=Train()))
    module = parse_module(text + text.replace("infer", "train"))
    assert canonicalise(module, Options(train=Train()))
    assert all(len(graph.nodes) == 3 for graph in module.programs.values())


def test_what_follows_a_flattened_product_can_join_it() -> None:
    leaves = "param %w: f32[6,3]\nparam %b: f32[3]\ninput %r: f32[2,4,3]\ninput %v: f32[2,4,6]"
    text = program(
        "%p: f32[2,4,3] = matmul(%v, %w)\n%s: f32[2,4,3] = add(%b, %p)\n%y: f32[2,4,3] = mul(%s, %r)", leaves=leaves
    )
    after = program(
        "%f: f32[8,6] = reshape(%v) {shape=(8,6)}\n%q: f32[8,3] = matmul(%f, %w)\n%t: f32[8,3] = add(%b, %q)\n"
        "%g: f32[8,3] = reshape(%r) {shape=(8,3)}\n%z: f32[8,3] = mul(%t, %g)\n"
        "%y: f32[2,4,3] = reshape(%z) {shape=(2,4,3)}",
        leaves=leaves,
    )
    check_pass(canonicalise, text, after, Options())


@pytest.mark.parametrize("operand", ["f32[2,1,3]", "f32[4,1]"])
def test_what_differs_by_row_stays_behind_the_reshape(operand: str) -> None:
    leaves = f"param %w: f32[6,3]\nparam %b: {operand}\ninput %v: f32[2,4,6]"
    flat = "%f: f32[8,6] = reshape(%v) {shape=(8,6)}\n%q: f32[8,3] = matmul(%f, %w)\n"
    text = program(f"{flat}%p: f32[2,4,3] = reshape(%q) {{shape=(2,4,3)}}\n%y: f32[2,4,3] = add(%p, %b)", leaves=leaves)
    check_pass(canonicalise, text, text, Options())
