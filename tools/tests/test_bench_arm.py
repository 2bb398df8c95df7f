"""What the benchmark of Arm code says of planted loops, and its counts of a product whose multiply-adds are known."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from edgec.backends import elf
from edgec.backends.targets import find_target
from edgec.backends.tvm.backend import TvmBackend
from edgec.compiler.compile import lower_module
from edgec.compiler.passbase import Options
from edgec.graph.ir import Graph, Module, Role
from edgec.graph.ops.matmul import MatMul
from edgec.graph.types import DType, tensor
from edgec.runtime.layout import write_artifact
from edgec.tools.bench.arm import mca
from edgec.tools.bench.arm.__main__ import TOGETHER, kind_of, measure
from edgec.tools.bench.arm.code import Function, Mix, disassemble

PLANTED = """
    .global clean, spilled
    .type clean, %function
clean:
    mov x3, #8
1:  mov x2, #16
2:  ldp q0, q1, [x0], #32
    fmla v16.4s, v0.4s, v1.s[0]
    fmla v17.4s, v0.4s, v1.s[1]
    fmla v18.4s, v0.4s, v1.s[2]
    fmla v19.4s, v0.4s, v1.s[3]
    subs x2, x2, #1
    b.ne 2b
    str q16, [sp, #16]
    subs x3, x3, #1
    b.ne 1b
    ret
    .type spilled, %function
spilled:
    mov x2, #16
3:  ldr q0, [x0], #16
    ldr q1, [sp, #32]
    fmla v1.4s, v0.4s, v0.4s
    str q1, [sp, #32]
    cbnz x2, 4f
    fmadd s5, s6, s7, s5
4:  sub x2, x2, #1
    cbnz x2, 3b
    ret
"""


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Function]:
    folder = tmp_path_factory.mktemp("planted")
    made, code = folder / "planted.o", folder / "planted"
    subprocess.run(["aarch64-linux-gnu-as", "-o", made, "-"], input=PLANTED.encode(), check=True)
    entries = {s.name: s.value for s in elf.parse(made.read_bytes()).symbols if s.is_function}
    subprocess.run(["aarch64-linux-gnu-strip", "-o", code, made], check=True)
    return {function.name: function for function in disassemble(code.read_bytes(), entries)}


def loop_mix(function: Function) -> Mix:
    (loop,) = function.product_loops
    return sum((block.mix for block in loop), Mix())


def test_an_inner_loop_is_found_and_counted(planted: dict[str, Function]) -> None:
    assert loop_mix(planted["clean"]) == Mix(instructions=7, multiply_adds=4, macs=16, loads=1)


def test_a_spill_is_seen_where_it_is_in_the_loop(planted: dict[str, Function]) -> None:
    """Across a branch within the loop too; what stands behind a loop is none of its spills."""
    assert loop_mix(planted["spilled"]) == Mix(instructions=8, multiply_adds=2, macs=5, loads=2, stores=1, spills=2)
    assert sum(block.mix.spills for block in planted["clean"].blocks) == 1


def test_blocks_cover_a_function_once(planted: dict[str, Function]) -> None:
    for function in planted.values():
        assert tuple(i for block in function.blocks for i in block.instructions) == function.instructions


def test_modelled_cycles(planted: dict[str, Function]) -> None:
    """One vector multiply-add in a cycle is the peak, which a loop without spills comes nearer to."""
    assert mca.peak("cortex-a72") == pytest.approx(4)
    ((clean,),), (spilled, *_) = planted["clean"].product_loops, planted["spilled"].product_loops[0]
    four, one = mca.cycles([clean, spilled], "cortex-a72")
    assert four >= 4
    assert clean.mix.macs / four > 2 * spilled.mix.macs / one


def test_counts_of_a_product(tmp_path: Path) -> None:
    """Of 24 x 16 by 16 x 40, to the multiply-add: every block that ran is counted as often as it ran."""
    graph = Graph("infer")
    a, b = (graph.add_leaf(Role.INPUT, name, tensor(DType.F32, *shape)) for name, shape in SHAPES.items())
    graph.outputs["y"] = graph.emit1(MatMul(), a, b)
    result = lower_module(Module({"infer": graph}), [TvmBackend(find_target("rpi4"))], Options())
    write_artifact(tmp_path / "a.edge", result.artifact)
    kinds = measure(tmp_path / "a.edge", "infer", "cortex-a72")
    assert kinds["matmul"].all.mix.macs == kinds["matmul"].inner.mix.macs == 24 * 16 * 40
    assert kinds[TOGETHER].all.cycles >= kinds["matmul"].all.cycles >= 24 * 16 * 40 / 4


SHAPES = {"a": (24, 16), "b": (16, 40)}


@pytest.mark.parametrize(
    ("symbol", "kind"),
    [
        ("edgec_f32_pointwise_weight_grad_mul_sgd_update__0123abcd", "pointwise_weight_grad"),
        ("edgec_f32_matmul_tn_sgd_update__0123abcd", "matmul_tn"),
        ("edgec_f32_softmax_cross_entropy__0123abcd", "softmax"),
        ("edgec_f32_add_mul__0123abcd", "the rest"),
    ],
)
def test_kinds_of_kernels(symbol: str, kind: str) -> None:
    assert kind_of(symbol) == kind
