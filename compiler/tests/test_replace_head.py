"""replace_head: another number of classes, everything else as it was; fresh weights as torch draws a Linear's."""

import numpy as np
import pytest

from edgec.compiler.adapt import NewHead
from edgec.compiler.passbase import Options
from edgec.compiler.passes.replace_head import replace_head
from edgec.graph.errors import UserError
from edgec.graph.ir import Module
from edgec.graph.parse import parse_module
from edgec.graph.text import print_module
from edgec.graph.verify import verify_module
from edgec.tools.testing.programs import initialise

DENSE = """
graph infer {{
  input %x: f32[2,3]
  param %first.w: f32[4,3]
  param %fc.w: f32[{n},4]
  param %fc.b: f32[{n}]
  %h: f32[2,4] = matmul(%x, %first.w) {{transpose_b=true}} @"first"
  %m: f32[2,{n}] = matmul(%h, %fc.w) {{transpose_b=true}} @"fc"
  %scores: f32[2,{n}] = add(%m, %fc.b) @"fc"
  %p: f32[2,{n}] = softmax(%scores) {{axis=1}}
  output "scores" = %scores
  output "p" = %p
}}
"""
CONV = """
graph infer {{
  input %x: f32[2,3,1,1]
  param %w: f32[{n},3,1,1]
  param %b: f32[{n}]
  %c: f32[2,{n},1,1] = conv2d(%x, %w) @"head"
  %r: f32[{n},1,1] = reshape(%b) {{shape=({n},1,1)}}
  %s: f32[2,{n},1,1] = add(%c, %r)
  %y: f32[2,{n}] = reshape(%s) {{shape=(2,{n})}}
  output "y" = %y
}}
"""


def _replaced(text: str, head: NewHead) -> Module:
    module = initialise(parse_module(text))
    assert replace_head(module, Options(new_head=head))
    verify_module(module)
    return module


def _shape_of(module: Module) -> str:
    """The program without names of parameters' data, which `head` draws."""
    return "\n".join(line.partition(" = #")[0] for line in print_module(module).splitlines())


def _expected(text: str, renames: dict[str, str]) -> set[str]:
    for old, new in renames.items():
        text = text.replace(old, new)
    return {line.strip() for line in text.splitlines() if line.strip()}


@pytest.mark.parametrize(
    ("text", "old", "renames"),
    [
        (DENSE, 5, {"%fc.w": "%fc.w.head", "%fc.b": "%fc.b.head"}),
        (CONV, 4, {"%w": "%w.head", "%b": "%b.head", "%r": "%reshape"}),
    ],
)
@pytest.mark.parametrize("classes", [1, 3, 9])
def test_the_text_form(text: str, old: int, renames: dict[str, str], classes: int) -> None:
    module = _replaced(text.format(n=old), NewHead(classes))
    got = {line.strip() for line in _shape_of(module).splitlines()}
    assert got == _expected(text.format(n=classes), renames)


def test_weights_are_drawn_as_torch_draws_a_linear_layer() -> None:
    """Uniform in +-1/sqrt(4): at 4000 draws the bounds are nearly met, and the mean is near 0."""
    module = _replaced(DENSE.format(n=5), NewHead(1000, seed=3))
    leaves = module.programs["infer"].leaves
    for name in ("fc.w.head", "fc.b.head"):
        data = leaves[name].data
        assert 0.49 < np.abs(data).max() <= 0.5
        assert abs(data.mean()) < 0.03
    again = _replaced(DENSE.format(n=5), NewHead(1000, seed=3)).programs["infer"].leaves["fc.w.head"].data
    other = _replaced(DENSE.format(n=5), NewHead(1000, seed=4)).programs["infer"].leaves["fc.w.head"].data
    assert np.array_equal(leaves["fc.w.head"].data, again)
    assert not np.array_equal(again, other)


def test_a_named_layer_goes_with_nothing_behind_it() -> None:
    module = _replaced(
        """
        graph infer {
          input %x: f32[2,3]
          param %w: f32[3,3]
          param %v: f32[3,3]
          %a: f32[2,3] = matmul(%x, %w) @"a"
          %b: f32[2,3] = matmul(%x, %v) @"b"
          output "a" = %a
          output "b" = %b
        }
        """,
        NewHead(7, node="a"),
    )
    outputs = module.programs["infer"].outputs
    assert {name: value.type.shape for name, value in outputs.items()} == {"a": (2, 7), "b": (2, 3)}


@pytest.mark.parametrize(
    ("body", "node", "message"),
    [
        ('%y: f32[2,5] = matmul(%x, %w) @"fc"', "conv9", "node `conv9` is no dense layer"),
        ('%m: f32[2,5] = matmul(%x, %w) @"fc"\n %y: f32[2] = reduce_max(%m) {axes=(1)} @"max"', None, "node `max`"),
        ('%m: f32[2,5] = matmul(%x, %w) @"fc"\n %y: f32[2,5] = mul(%m, %s) @"scale"', None, "node `scale`"),
        ("%y: f32[2,3] = relu(%x)", None, "the model has no dense layer"),
    ],
)
def test_what_is_no_head_is_refused(body: str, node: str | None, message: str) -> None:
    text = f'graph infer {{\n input %x: f32[2,3]\n param %w: f32[3,5]\n param %s: f32[5]\n {body}\n output "y" = %y\n}}'
    with pytest.raises(UserError, match=message) as caught:
        replace_head(initialise(parse_module(text)), Options(new_head=NewHead(4, node)))
    assert caught.value.code == "E0111"


def test_numbers_are_checked_when_they_are_written_down() -> None:
    for wrong in ({"classes": 0}, {"classes": 3, "seed": -1}):
        with pytest.raises(UserError):
            NewHead(**wrong)
