"""Accumulators stay in registers: read from the machine code of kernels of real size, also for machines that are
not here.
"""

import re

import pytest

from edgec.backends.base import Target
from edgec.backends.targets import find_target
from edgec.backends.tvm.strategies import lower_group
from edgec.graph.ir import Graph, Role
from edgec.graph.ops.matmul import MatMul
from edgec.graph.types import DType, tensor
from edgec.tools.bench.arm.code import parse
from edgec.tools.bench.kernels import Layer, cases
from edgec.tools.testing.group_case import group_of, storages
from edgec.tools.testing.kernel_call import disassemble

F32 = DType.F32
MULTIPLY_ADD = re.compile(r"vfn?madd\w*ps|fmla")
# Of a vector register to the stack: a spilled accumulator.
SPILL = re.compile(r"vmov\w+\s+%[xyz]mm\d+,\S*\(%rsp|st[rp]\s+q\d+.*\[sp")
TARGETS = [find_target(name) for name in ("x86-64-v4", "x86-64-v3", "rpi4")]
POINTWISE, DENSE, DEPTHWISE = Layer(128, 128, 28), Layer(64, 64, 14, 5), Layer(128, 0, 28, 3)  # 3x3 is Winograd's


def loops(code: str) -> list[list[str]]:
    """Bodies of all loops, from the target of a backward branch to the branch."""
    kernel = code.split("<__")[0]  # LLVM adds two helpers for half floats in sections of their own
    lines = re.findall(r"^\s*([0-9a-f]+):\s*(\S.*)$", kernel, re.MULTILINE)
    position = {address: i for i, (address, _) in enumerate(lines)}
    found = []
    for i, (_, text) in enumerate(lines):
        branch = re.match(r"(?:j\w+|b\.\w+|cbn?z|tbn?z|b)\s.*?\b([0-9a-f]+) <", text)
        if branch and position.get(branch[1], i + 1) <= i:
            found.append([body for _, body in lines[position[branch[1]] : i + 1]])
    return found


def innermost(code: str, least: int) -> list[list[str]]:
    """Loops with `least` multiply-adds or more that hold no other such loop."""
    hot = [loop for loop in loops(code) if sum(bool(MULTIPLY_ADD.search(line)) for line in loop) >= least]
    return [loop for loop in hot if not any(len(other) < len(loop) and other[0] in loop for other in hot)] or hot


def code_of(layer: Layer, what: str, target: Target) -> str:
    for kind, graph, alias, outputs in cases(layer, 1):
        if kind == what:
            lowering = lower_group(group_of(graph, outputs), storages(graph, target), alias, target)
            return disassemble(lowering.calls[-1].spec, target)
    raise AssertionError(what)


@pytest.mark.parametrize("what", ["forward", "input grad", "weight grad"])
@pytest.mark.parametrize("layer", [POINTWISE, DENSE, DEPTHWISE], ids=str)
@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
def test_no_accumulator_is_spilled(target: Target, layer: Layer, what: str):
    hot = innermost(code_of(layer, what, target), 8)
    assert hot, "no loop of multiply-adds"
    for loop in hot:
        spills = sum(bool(SPILL.search(line)) for line in loop)
        # An accumulator in memory is stored at each of its multiply-adds; a few values that wait for their use are not.
        assert spills * 10 <= sum(bool(MULTIPLY_ADD.search(line)) for line in loop)


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
def test_products_of_winograd_are_not_spilled(target: Target):
    """Transforms of 6x6 pixels are: they have more values than there are registers, and few of their instructions
    multiply.
    """
    hot = innermost(code_of(Layer(128, 128, 28, 3), "forward", target), 8)
    dense = [loop for loop in hot if 3 * sum(bool(MULTIPLY_ADD.search(line)) for line in loop) > len(loop)]
    assert len(dense) < len(hot), "not Winograd's"
    assert dense and not any(SPILL.search(line) for loop in dense for line in loop)


@pytest.mark.parametrize("depth", [384, 512])
@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
def test_chains_of_long_sums_are_a_loop_without_spills(target: Target, depth: int):
    """LLVM likes to unroll a loop over three or four of them, which took a fifth of the time and most of the code."""
    graph = Graph("deep")
    a = graph.add_leaf(Role.INPUT, "a", tensor(F32, 84, depth))
    graph.emit1(MatMul(), a, graph.add_leaf(Role.PARAM, "b", tensor(F32, depth, 96)))
    lowering = lower_group(group_of(graph), storages(graph, target), {}, target)
    hot = innermost(disassemble(lowering.calls[-1].spec, target), 8)
    assert 1 <= len(hot) <= 2, "unrolled"
    assert not any(SPILL.search(line) for loop in hot for line in loop)


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
def test_every_line_of_a_panel_is_asked_for_ahead(target: Target):
    """Each tile reads a panel; the first would wait for memory. One row is a stream, which processors foresee."""
    prefetch = re.compile(r"prefetcht0|prfm")
    hot = innermost(code_of(POINTWISE, "forward", target), 8)
    assert hot
    for loop in hot:
        depths = 4 if target.name == "rpi4" else 1  # in one iteration
        assert sum(bool(prefetch.match(line)) for line in loop) == depths * 2 * target.lanes // 16
    assert not prefetch.search(code_of(Layer(128, 128, 1), "forward", target))


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
def test_a_weight_gradient_asks_for_what_its_next_tile_reads(target: Target):
    """A line of the left row and the columns of a panel: rows are far apart, which processors do not foresee. Taps read
    what the first of them has read."""
    prefetch = re.compile(r"prefetcht0|prfu?m")
    hot = innermost(code_of(POINTWISE, "weight grad", target), 8)
    assert hot
    for loop in hot:
        assert sum(bool(prefetch.match(line)) for line in loop) == 1 + max(1, 2 * target.lanes // 16)
    dense = code_of(DENSE, "weight grad", target)
    assert not any(prefetch.match(line) for loop in innermost(dense, 8) for line in loop)
    assert prefetch.search(dense), "the weight is asked for"
    assert not prefetch.search(code_of(Layer(16, 16, 7), "weight grad", target)), "all of it stays near"


def test_arm_multiplies_by_element():
    """64 multiply-adds of an 8x8 tile over four depths need 8 loads of the left matrix and 4 pairs of the right."""
    for loop in innermost(code_of(POINTWISE, "forward", find_target("rpi4")), 32):
        adds = [line for line in loop if MULTIPLY_ADD.search(line)]
        assert all(".s[" in line for line in adds)
        assert 5 * sum(line.startswith("ld") for line in loop) <= len(adds)


def test_arm_clips_by_fmax_and_fmin():
    """Which pass NaN on as numpy does; a comparison and a selection would be two instructions for each of them."""
    code = code_of(POINTWISE, "forward", find_target("rpi4"))
    assert re.search(r"fmax\tv", code) and re.search(r"fmin\tv", code)
    assert not re.search(r"fcm\w\w\tv", code)


@pytest.mark.parametrize("what", ["forward", "input grad"])
def test_arm_addresses_neighbours_by_displacements(what: str):
    """Accesses to a tile's results share an address: scalar arithmetic is less than one instruction for each."""
    (function,) = (f for f in parse(code_of(DEPTHWISE, what, find_target("rpi4"))) if f.name == "kernel")
    hot = [block for block in function.blocks if block.mix.stores >= 12]
    assert hot, "no block stores a tile"
    for block in hot:
        scalar = [i for i in block.instructions if re.match(r"[wx]\d", i.operands)]
        assert len(scalar) < block.mix.loads + block.mix.stores, [str(i) for i in scalar]


def test_the_search_sees_a_spill():
    code = """
   0:\tvmovups %zmm3,0x40(%rsp)
   4:\tvfmadd231ps (%rdi),%zmm1,%zmm2
   8:\tjne    0 <kernel>
"""
    (loop,) = innermost(code, 1)
    assert [line for line in loop if SPILL.search(line)]
    assert SPILL.search("str\tq1, [sp, #32]") and not SPILL.search("str\tq1, [x0, #32]")
