"""C text of every op's generic kernel: standard C without a warning, and the results of the reference."""

import ctypes
import subprocess
from pathlib import Path

import numpy as np
import pytest
from cases.all_cases import OP_CASES
from cases.op_case import OpCase, assert_agrees

from edgec.backends.base import Group, KernelCall
from edgec.backends.targets import find_target
from edgec.backends.tvm.build import c_image
from edgec.backends.tvm.c_source import PRELUDE, tidy
from edgec.backends.tvm.codegen import compile_kernel
from edgec.backends.tvm.generic.kernel import lower_generic
from edgec.graph.errors import InternalError
from edgec.runtime.abi import Storage
from edgec.tools.testing.op_group import memory_of, op_group

M7 = find_target("cortex-m7")
# Parts of an index that a shape does not need stay behind as names.
STRICT = ["-std=c11", "-ffp-contract=off", "-O2", "-Wall", "-Werror", "-Wno-unused-variable"]
SAMPLE = [case for case in OP_CASES if case.name in ("softmax/wide", "conv2d/same_3x3", "sigmoid/image")]

TABLE = """
typedef void (*edgec_kernel_fn)(void);
extern const edgec_kernel_fn edgec_kernels[];
const edgec_kernel_fn edgec_kernels[] = {{{}}};
"""
# A program that calls kernel argv[1] with argv[2] pointers into the file argv[3], and writes the file back.
DRIVER = """
#include <stdio.h>
#include <stdlib.h>
int main(int argc, char **argv) {
  static float m[3][4096];
  FILE *file = argc == 4 ? fopen(argv[3], "r+b") : 0;
  if (!file || fread(m, sizeof m, 1, file) != 1) return 1;
  edgec_kernel_fn kernel = edgec_kernels[atoi(argv[1])];
  if (atoi(argv[2]) == 2) ((void (*)(float *, float *, int32_t, int32_t))kernel)(m[0], m[1], 0, 1);
  if (atoi(argv[2]) == 3) ((void (*)(float *, float *, float *, int32_t, int32_t))kernel)(m[0], m[1], m[2], 0, 1);
  rewind(file);
  return fwrite(m, sizeof m, 1, file) != 1 || fclose(file);
}
"""


def row_major(group: Group) -> dict:
    return {value: Storage.row_major(value.type.shape) for value in (*group.inputs, *group.outputs)}


def lowered(case: OpCase) -> tuple[Group, KernelCall]:
    group = op_group(case.op, case.types)
    (call,) = lower_generic(group, row_major(group), {}, M7).calls
    return group, call


def c_file(cases: list[OpCase]) -> bytes:
    """One C file; the kernel of case i is entry i of its table."""
    emitter = "edgec.backends.tvm.emitters"
    names = [f"edgec_{i:03d}_{case.name.replace('/', '_')}" for i, case in enumerate(cases)]
    functions = {
        name: compile_kernel(lowered(case)[1].spec, M7, name, emitter) for name, case in zip(names, cases, strict=True)
    }
    return c_image(functions) + TABLE.format(", ".join(f"(edgec_kernel_fn){name}" for name in names)).encode()


@pytest.fixture(scope="module")
def all_kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("c") / "kernels.c"
    path.write_bytes(c_file(list(OP_CASES)))
    return path


@pytest.fixture(scope="module")
def library(all_kernels: Path) -> ctypes.CDLL:
    subprocess.run(
        ["gcc", *STRICT, "-shared", "-fPIC", "-o", "kernels.so", all_kernels.name], cwd=all_kernels.parent, check=True
    )
    return ctypes.CDLL(str(all_kernels.parent / "kernels.so"))


@pytest.mark.parametrize("case", OP_CASES, ids=str)
def test_c_agrees_with_the_reference(case: OpCase, library: ctypes.CDLL):
    group, call = lowered(case)
    arrays = case.arrays()
    memory = memory_of(group, arrays, row_major(group))
    table = (ctypes.c_void_p * len(OP_CASES)).in_dll(library, "edgec_kernels")
    kernel = ctypes.CFUNCTYPE(None)(table[OP_CASES.index(case)])
    kernel.argtypes = None
    kernel(
        *(ctypes.c_void_p(memory[value].ctypes.data) for value in call.operands), ctypes.c_int32(0), ctypes.c_int32(1)
    )
    for value, expected in zip(group.outputs, case.op.reference(*arrays), strict=True):
        assert_agrees(case.op, memory[value].reshape(value.type.shape), expected)


@pytest.mark.parametrize(
    "compiler",
    [["aarch64-linux-gnu-gcc"], ["arm-none-eabi-gcc", "-mcpu=cortex-m7", "-mfpu=fpv5-sp-d16", "-mfloat-abi=hard"]],
    ids=["aarch64", "cortex-m7"],
)
def test_other_compilers_accept_it_without_a_warning(compiler: list[str], all_kernels: Path, tmp_path: Path):
    # -Wdouble-promotion: no arithmetic in double.
    command = [*compiler, *STRICT, "-Wdouble-promotion", "-c", str(all_kernels), "-o", str(tmp_path / "kernels.o")]
    subprocess.run(command, check=True)
    symbols = subprocess.run(
        [compiler[0].replace("gcc", "nm"), "-u", tmp_path / "kernels.o"], check=True, capture_output=True, text=True
    )
    # The compiler may turn a loop into one of the first; the others are its own arithmetic of 64 bits. Nothing of libm.
    allowed = {"memcpy", "memset", "__aeabi_ldivmod", "__aeabi_l2f", "__aeabi_f2lz"}
    assert set(symbols.stdout.split()) - {"U"} <= allowed


def test_machines_agree_to_the_bit(tmp_path: Path):
    (tmp_path / "program.c").write_bytes(c_file(SAMPLE) + DRIVER.encode())
    for compiler, name in (("gcc", "x86"), ("aarch64-linux-gnu-gcc", "aarch64")):
        subprocess.run([compiler, *STRICT, "-static", "-o", name, "program.c"], cwd=tmp_path, check=True)
    memory = np.random.default_rng(0).standard_normal((3, 4096)).astype(np.float32)
    for entry, case in enumerate(SAMPLE):
        results = []
        pointers = str(len(lowered(case)[1].operands))
        for command in (["./x86"], ["qemu-aarch64-static", "./aarch64"]):
            (tmp_path / "memory").write_bytes(memory.tobytes())
            subprocess.run([*command, str(entry), pointers, "memory"], cwd=tmp_path, check=True)
            results.append((tmp_path / "memory").read_bytes())
        assert results[0] == results[1]
        assert results[0] != memory.tobytes()


def test_a_rounded_constant_is_refused():
    source = "TVM_DLL void k(float* p0, int32_t lo, int32_t hi) {\n  p0[0] = 1.000000e-01f;\n}\n"
    with pytest.raises(InternalError, match="rounded constant"):
        tidy(source, "k")


def test_cells_that_are_only_set_are_dropped():
    """A compiler warns of them. Those that are read, if only by themselves, stay."""
    body = "  float a[1];\n  float b[1];\n  float c = p0[0];\n  a[0] = c;\n  b[0] = b[0] + c;\n  a[0] = 2.0f;\n"
    text = tidy(f"TVM_DLL void k(float* p0, int32_t lo, int32_t hi) {{\n{body}}}\n", "k")
    assert "a[" not in text
    assert "b[0] = b[0] + c;" in text and "float c = p0[0];" in text


def test_constants_keep_every_bit():
    bits = [int(np.float32(x).view(np.int32)) for x in (0.1, 1 / 3, 1e-45, 3.4028235e38, -1.5, np.inf, -np.inf, np.nan)]
    body = "".join(f"  p0[{i}] = (*(float *)(&({b})));\n" for i, b in enumerate(bits))
    text = tidy(f"TVM_DLL void k(float* p0, int32_t lo, int32_t hi) {{\n{body}}}\n", "k")
    literals = [line.split(" = ")[1].rstrip(";").strip("()") for line in text.splitlines() if " = " in line]
    assert literals[5:] == ["INFINITY", "-INFINITY", "NAN"]
    assert [int(np.float32(text.rstrip("f")).view(np.int32)) for text in literals[:5]] == bits[:5]
    assert "static void k(float* restrict p0" in text
    assert "math.h" in PRELUDE
