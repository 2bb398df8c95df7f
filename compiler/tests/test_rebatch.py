"""rebatch: a program at batch n computes for each image what it computes for it alone, or is refused."""

import numpy as np
import pytest
from rebatched import check

from edgec.compiler.batch_rules import RULES
from edgec.compiler.rebatch import rebatch
from edgec.graph.errors import UserError
from edgec.graph.ir import Graph, Role, Value
from edgec.graph.ops import (
    ALL_OPS,
    BatchNorm,
    Conv2d,
    MaxPool2d,
    Reshape,
)
from edgec.graph.parse import parse_graph
from edgec.graph.types import DType, TensorType

ONE = {
    "flatten": ("%y: f32[1,24] = reshape(%x) {shape=(1,24)}", 0),
    "rows of all images in one product": (
        """
        %f: f32[6,4] = reshape(%x) {shape=(6,4)}
        %m: f32[6,2] = matmul(%f, %w)
        %y: f32[1,2,3,2] = reshape(%m) {shape=(1,2,3,2)}
        """,
        0,
    ),
    "the batch as second axis": (
        """
        %u: f32[2,1,3,4] = transpose(%x) {perm=(1,0,2,3)}
        %t: f32[2,1,12] = reshape(%u) {shape=(2,1,12)}
        %s: f32[12,2,1] = transpose(%t) {perm=(2,0,1)}
        %y: f32[12,2,1] = softmax(%s) {axis=1}
        """,
        2,
    ),
    "a class token": (
        "%t: f32[1,6,4] = reshape(%x) {shape=(1,6,4)}\n %y: f32[1,7,4] = concat(%token, %t) {axis=1}",
        0,
    ),
}


@pytest.mark.parametrize(("body", "axis"), ONE.values(), ids=ONE)
def test_known_idioms(body: str, axis: int) -> None:
    graph = parse_graph(
        f"""
        graph infer {{
          input %x: f32[1,2,3,4]
          param %w: f32[4,2] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
          param %token: f32[1,1,4] = [1.0, 2.0, 3.0, 4.0]
          {body}
          output "y" = %y
        }}
        """
    )
    assert check(graph, 1, 5) == {"y": axis}


REFUSED = {
    "mean over images": ("%y: f32[2,3,4] = reduce_mean(%x) {axes=(0)}", "reduced"),
    "softmax over images": ("%y: f32[2,2,3,4] = softmax(%x) {axis=0}", "softmax"),
    "one image cut out": ("%y: f32[1,2,3,4] = slice(%x) {starts=(0,0,0,0), ends=(1,2,3,4), steps=(1,1,1,1)}", "cut"),
    "images appended": ("%y: f32[4,2,3,4] = concat(%x, %x) {axis=0}", "concatenated"),
    "a parameter for each image": ("%y: f32[2,2,3,4] = add(%x, %per_image)", "fixed at the old batch"),
    "batch folded away": ("%y: f32[3,16] = reshape(%x) {shape=(3,16)}", "no axis"),
    "a product over images": (
        "%f: f32[2,24] = reshape(%x) {shape=(2,24)}\n%y: f32[24,24] = matmul(%f, %f) {transpose_a=true}",
        "sums over the batch",
    ),
    "images against images": (
        "%f: f32[2,24] = reshape(%x) {shape=(2,24)}\n%y: f32[2,2] = matmul(%f, %f) {transpose_b=true}",
        "with one another",
    ),
}


@pytest.mark.parametrize(("body", "message"), REFUSED.values(), ids=REFUSED)
def test_programs_that_mix_images_are_refused_with_the_node(body: str, message: str) -> None:
    text = f'graph infer {{\n input %x: f32[2,2,3,4]\n param %per_image: f32[2,1,1,1]\n {body} @"Node_9"\n'
    graph = parse_graph(text + ' output "y" = %y\n}')
    with pytest.raises(UserError, match=message) as caught:
        rebatch(graph, 4, "train")
    assert (caught.value.code, caught.value.where) == ("E0302", "node `Node_9`")
    assert "train with a batch of 2" in caught.value.hint
    same, _ = rebatch(graph, 2, "train")
    assert same.outputs["y"].type == graph.outputs["y"].type


@pytest.mark.parametrize("inputs", ["", "input %x: f32[2]\n input %y: f32[3]", "input %x: f32[]", "input %x: f32[0,2]"])
def test_inputs_without_a_common_batch_are_refused(inputs: str) -> None:
    with pytest.raises(UserError, match="leading axis") as caught:
        rebatch(parse_graph(f"graph infer {{\n {inputs}\n}}"), 4, "train")
    assert caught.value.code == "E0302"


def test_scalar_inputs_and_constants_are_the_same_for_all_images() -> None:
    graph = parse_graph(
        """
        graph infer {
          input %x: f32[1,2]
          param %w: f32[1,2] = [1.0, 2.0]
          %v: f32[1,2] = exp(%w)
          %y: f32[1,2] = add(%x, %v)
          output "y" = %y
          output "v" = %v
        }
        """
    )
    assert check(graph, 1, 4) == {"y": 0, "v": None}


# Of losses and updates: no model brings them.
OURS = (
    "accumulate",
    "bce_logits",
    "bias_correction",
    "compress",
    "decompress",
    "gate_by_bits",
    "inside_bits",
    "max_pool2d_positions",
    "softmax_cross_entropy",
)


def test_every_forward_op_has_a_rule() -> None:
    """An op without one would make models that contain it untrainable at another batch."""
    backward = {op for op in ALL_OPS if op.name.endswith(("_grad", "_update")) or op.name in OURS}
    known = (*RULES, Reshape)  # a reshape may leave several places open
    missing = {op.name for op in ALL_OPS if op not in backward and not issubclass(op, known)}
    assert not missing


def test_convolutions_pools_and_norms_follow() -> None:
    graph = Graph("infer")
    x = graph.add_leaf(Role.INPUT, "x", TensorType(DType.F32, (1, 2, 6, 6)))
    rng = np.random.default_rng(0)

    def param(name: str, *shape: int) -> Value:
        data = rng.uniform(0.5, 1.5, shape).astype(np.float32)
        return graph.add_leaf(Role.PARAM, name, TensorType(DType.F32, shape), data=data)

    y = graph.emit1(Conv2d(pads=(1, 1, 1, 1)), x, param("w", 3, 2, 3, 3))
    y = graph.emit1(BatchNorm(), y, *(param(name, 3) for name in ("gamma", "beta", "mean", "variance")))
    graph.outputs["y"] = graph.emit1(MaxPool2d((2, 2), (2, 2)), y)
    assert check(graph, 1, 3) == {"y": 0}


def test_rankings_gathers_and_row_norms_follow() -> None:
    graph = parse_graph(
        """
        graph infer {
          input %x: f32[1,5,4]
          constant %picked: i64[3] = [2, 0, -1]
          param %gamma: f32[4] = [1.0, 2.0, 0.5, 1.5]
          %n: f32[1,5,4], %mean: f32[1,5], %inv_std: f32[1,5] = layer_norm(%x, %gamma) {axis=2, epsilon=0.1}
          %r: f32[1,5,4], %inv_rms: f32[1] = rms_norm(%n) {axis=1, epsilon=0.1}
          %g: f32[1,3,4] = gather(%r, %picked) {axis=1}
          %best: f32[1,3,2], %where: i64[1,3,2] = top_k(%g) {axis=2, k=2}
          %same: f32[1,3,2] = gather_elements(%g, %where) {axis=2}
          %sums: f32[1,3,2] = cum_sum(%same) {axis=1}
          %place: i64[1,2] = arg_max(%sums) {axis=1}
          output "best" = %best
          output "sums" = %sums
          output "place" = %place
          output "inv_std" = %inv_std
        }
        """
    )
    assert check(graph, 1, 3) == {"best": 0, "sums": 0, "place": 0, "inv_std": 0}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("%y: f32[4] = reduce_min(%x) {axes=(0)}", "images are reduced to one"),
        ("%y: f32[2,4] = cum_sum(%x) {axis=0}", "compares or adds up images"),
        ("%y: f32[1,4] = gather(%x, %i) {axis=0}", "images are picked out"),
        ("%y: f32[1,4] = gather_nd(%x, %ii)", "coordinates reach across"),
        ("%y: f32[2,4], %r: f32[] = rms_norm(%x) {axis=0, epsilon=0.1}", "statistics are taken over the batch"),
    ],
)
def test_ops_that_look_across_images_are_refused(line: str, reason: str) -> None:
    text = f"""
        graph infer {{
          input %x: f32[2,4]
          constant %i: i64[1] = [0]
          constant %ii: i64[1,1] = [0]
          {line}
          output "y" = %y
        }}
        """
    with pytest.raises(UserError, match=reason):
        rebatch(parse_graph(text), 6, "train")


ATTENTION = """
  graph infer {
    input %x: f32[1,5,6]
    constant %w: f32[6,6]
    %t: f32[5,1,6] = transpose(%x) {perm=(1,0,2)}
    %heads: f32[5,2,3] = reshape(%t) {shape=(5,2,3)}
    %q: f32[2,5,3] = transpose(%heads) {perm=(1,0,2)}
    %s: f32[2,5,5] = matmul(%q, %q) {transpose_b=true}
    %v: f32[2,5,3] = matmul(%s, %q)
    %back: f32[5,2,3] = transpose(%v) {perm=(1,0,2)}
    %rows: f32[5,6] = reshape(%back) {shape=(5,6)}
    %o: f32[5,6] = matmul(%rows, %w)
    %apart: f32[5,1,6] = reshape(%o) {shape=(5,1,6)}
    %y: f32[1,5,6] = transpose(%apart) {perm=(1,0,2)}
    output "y" = %y
  }
"""


def test_the_batch_may_be_an_inner_factor_of_an_axis() -> None:
    """As in torch's attention: heads join the batch, and [S,B] becomes the rows of a product."""
    graph = parse_graph(ATTENTION)
    graph.leaves["w"].data = np.random.default_rng(1).standard_normal((6, 6)).astype(np.float32)
    assert check(graph, 1, 3) == {"y": 0}


def test_a_choice_that_leads_to_a_refusal_is_taken_back() -> None:
    """[1,6] as [1,1,6]: the batch is the second axis, because the first one is summed over."""
    graph = parse_graph(
        """
        graph infer {
          input %x: f32[1,6]
          %a: f32[1,1,6] = reshape(%x) {shape=(1,1,6)}
          %b: f32[1,1,6] = reshape(%a) {shape=(1,1,6)}
          %c: f32[1,6] = reduce_sum(%b) {axes=(0)}
          output "c" = %c
        }
        """
    )
    assert check(graph, 1, 3) == {"c": 0}


def test_interleaved_images_are_refused() -> None:
    text = """
      graph infer {
        input %x: f32[2,3]
        %t: f32[3,2] = transpose(%x) {perm=(1,0)}
        %y: f32[6] = reshape(%t) {shape=(6)}
        output "y" = %y
      }
    """
    with pytest.raises(UserError, match="interleaved"):
        rebatch(parse_graph(text), 4, "train")
