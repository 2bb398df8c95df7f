"""The library without an operating system: built for a Cortex-M7, by its symbols and its size."""

import shutil
import subprocess
import sys

import pytest
from library_sources import CSRC, STRICT

pytestmark = pytest.mark.skipif(not shutil.which("arm-none-eabi-gcc"), reason="needs gcc-arm-none-eabi")

M7 = ["-mcpu=cortex-m7", "-mthumb", "-mfpu=fpv5-sp-d16", "-mfloat-abi=hard"]
ABSENT = ("platform_posix.c", "checkpoint.c", "tensorfile.c", "edgec_run.c")
SOURCES = [path for path in sorted(CSRC.glob("*.c")) if path.name not in ABSENT]
C_LIBRARY = {"memchr", "memcmp", "memcpy", "memset", "strcmp"}
COMPILER = {"__popcountdi2"}  # libgcc's, like all of __aeabi_
SIZE_BUDGET = 16 * 1024


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """All of it in one object; only a use of its own would show among the undefined symbols."""
    path = tmp_path_factory.mktemp("bare") / "edgec.o"
    flags = ["-Wpedantic", "-DEDGEC_BARE_METAL", *M7, "-O2", "-r", "-nostdlib"]
    subprocess.run(["arm-none-eabi-gcc", *STRICT, *flags, *SOURCES, "-o", path], check=True)
    return path


def _output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_nothing_is_asked_of_an_operating_system(library):
    needed = {line.split()[-1] for line in _output("arm-none-eabi-nm", "-u", library).splitlines()}
    assert {name for name in needed if not name.startswith("__aeabi_")} <= C_LIBRARY | COMPILER


def test_nothing_is_writable(library, capsys):
    text, data, bss = map(int, _output("arm-none-eabi-size", library).splitlines()[1].split()[:3])
    with capsys.disabled():
        sys.stdout.write(f"\nedgec on a Cortex-M7, -O2: {text} bytes of code and constants, of {SIZE_BUDGET} allowed\n")
    assert (data, bss) == (0, 0)
    assert text <= SIZE_BUDGET
