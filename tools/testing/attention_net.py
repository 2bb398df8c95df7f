"""A net with one attention of several heads, in the text form; what its scores meet can be chosen."""

from __future__ import annotations

from edgec.graph.ir import Module
from edgec.graph.parse import parse_graph
from edgec.tools.testing.programs import initialise

SCALE = "%scaled: SCORES = mul(%scores, %scale)"
MASK = "%masked: SCORES = add(%scaled, %mask)"
SOFTMAX = "%weights: SCORES = softmax(%masked) {axis=3}"
CHAIN = "\n".join((SCALE, MASK, SOFTMAX))


def attention_net(
    *,
    tokens: int = 7,
    heads: int = 2,
    depth: int = 3,
    chain: str = CHAIN,
    leaves: str = "",
    more: str = "",
) -> Module:
    """x[1,tokens,width], mask[1,1,1,tokens] -> y[1,4]. `chain` leads from %scores to %weights; `leaves` and `more` are
    further lines at the beginning and the end.
    """
    width = heads * depth
    split = f"f32[1,{tokens},{heads},{depth}]"
    turned = f"f32[1,{heads},{tokens},{depth}]"
    lines = ["graph infer {", f"input %x: f32[1,{tokens},{width}]", f"input %mask: f32[1,1,1,{tokens}]"]
    lines += [f"param %w.{name}: f32[{width},{width}]" for name in "qkvo"]
    lines += [f"param %fc: f32[{width},4]", "constant %scale: f32[] = [0.5]", *leaves.splitlines()]
    for name in "qkv":
        lines += [
            f"%{name}.flat: f32[1,{tokens},{width}] = matmul(%x, %w.{name})",
            f"%{name}.split: {split} = reshape(%{name}.flat) {{shape=(1,{tokens},{heads},{depth})}}",
            f"%{name}: {turned} = transpose(%{name}.split) {{perm=(0,2,1,3)}}",
        ]
    lines += ["%scores: SCORES = matmul(%q, %k) {transpose_b=true}", *chain.splitlines()]
    lines += [
        f"%mixed: {turned} = matmul(%weights, %v)",
        f"%turned: {split} = transpose(%mixed) {{perm=(0,2,1,3)}}",
        f"%joined: f32[1,{tokens},{width}] = reshape(%turned) {{shape=(1,{tokens},{width})}}",
        f"%out: f32[1,{tokens},{width}] = matmul(%joined, %w.o)",
        f"%mean: f32[1,{width}] = reduce_mean(%out) {{axes=(1)}}",
        "%y: f32[1,4] = matmul(%mean, %fc)",
        'output "y" = %y',
        *more.splitlines(),
        "}",
    ]
    text = "\n".join(lines).replace("SCORES", f"f32[1,{heads},{tokens},{tokens}]")
    return initialise(Module({"infer": parse_graph(text)}))
