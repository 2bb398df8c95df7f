import ctypes
import mmap
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import toy_emitter  # noqa: F401  tvm is loaded once, here, and inherited by every forked process
from toys import ELEMENTS, FILLED, ToySpec, build_toys

from edgec.backends import elf
from edgec.backends.base import CodeImage
from edgec.backends.targets import find_target
from edgec.backends.toolchain import toolchain
from edgec.backends.tvm import build as build_module
from edgec.backends.tvm.build import build, symbol_name
from edgec.graph.errors import InternalError, UserError


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def shared_cache(shared_folder, monkeypatch):
    """What one test compiled another may use."""
    monkeypatch.setenv("EDGEC_CACHE", str(shared_folder))


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """An empty cache; its folder of kernels."""
    monkeypatch.setenv("EDGEC_CACHE", str(tmp_path))
    return tmp_path / "kernels"


def call(image: CodeImage, spec: ToySpec, x: np.ndarray, tasks: int) -> np.ndarray:
    y = np.zeros_like(x)
    run(image, spec, x, y, tasks)
    return y


def run(image: CodeImage, spec: ToySpec, x: np.ndarray, y: np.ndarray, tasks: int = 1) -> None:
    """Map the image as the runtime does, and run all tasks."""
    memory = mmap.mmap(-1, len(image.data), prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(image.data)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32)
    function(start + image.entries[spec])(x.ctypes.data, y.ctypes.data, 0, tasks)


def test_built_kernels_run_from_the_mapped_image():
    specs = [ToySpec(3.25), ToySpec(-1.5), ToySpec(3.25)]
    target = find_target("x86")
    image = build_toys(specs, "x86")
    assert image.kind == "elf" and len(image.entries) == 2
    x = np.random.default_rng(0).standard_normal(ELEMENTS).astype(np.float32)
    for spec in specs:
        y = call(image, spec, x, ELEMENTS // target.lanes)
        np.testing.assert_allclose(y, x * np.float32(1 + spec.factor), rtol=1e-6)


@pytest.mark.parametrize("name", ["x86", "rpi4"])
def test_a_kernel_may_fill_memory_as_llvm_likes(name, monkeypatch):
    """Which is by a call of memset."""
    monkeypatch.setattr(elf, "without_symbols", bytes)
    filling = ToySpec(behaviour="fill")
    image = build_toys([filling, ToySpec()], name)
    elf.check_image(image.data, find_target(name).arch)
    assert any(symbol.name == elf.FILL for symbol in elf.parse(image.data).symbols)
    if name == "x86":
        x = np.ones(2 * FILLED, np.float32)
        memory = x.copy()
        run(image, filling, memory, memory)
        np.testing.assert_array_equal(memory, np.where(np.arange(2 * FILLED) < FILLED, 0, x))


def test_equal_code_stands_once_in_the_image():
    """Under names of their own, and only there."""
    one, same, other = ToySpec(2.0), ToySpec(2.0, "scale_too"), ToySpec(3.0)
    image = build_toys([one, same, other], "x86")
    assert image.entries[one] == image.entries[same] != image.entries[other]
    assert len(set(image.names.values())) == 3
    assert len(image.data) == len(build_toys([one, other], "x86").data)
    x = np.random.default_rng(0).standard_normal(ELEMENTS).astype(np.float32)
    np.testing.assert_array_equal(call(image, same, x, 1)[:4], call(image, one, x, 1)[:4])


@pytest.mark.parametrize("name", ["x86-64-v3", "rpi4"])
def test_image_obeys_the_rules_and_its_bytes_are_reproducible(name, own_cache):
    specs = [ToySpec(float(i)) for i in range(4)]
    target = find_target(name)
    first = build_toys(specs, name)
    elf.check_image(first.data, target.arch)
    for path in own_cache.glob("*/*"):
        path.unlink()
    second = build_toys(list(reversed(specs)), name)
    assert first.data == second.data
    assert first.entries == second.entries


def test_weak_half_float_helpers_are_dropped_when_unused(monkeypatch):
    monkeypatch.setattr(elf, "without_symbols", bytes)
    image = build_toys([ToySpec(1.0), ToySpec(2.0)], "x86-64-v3")
    functions = {s.name for s in elf.parse(image.data).symbols if s.is_function}
    assert functions == set(image.names.values())


def test_a_name_tells_the_kernel_and_the_target():
    spec = ToySpec()
    name = symbol_name(spec, find_target("rpi4"))
    assert name.startswith("edgec_f32_toy_scale__") and len(name.rpartition("__")[2]) == 8
    assert name != symbol_name(spec, find_target("rpi5"))
    assert symbol_name(spec, find_target("pixel")) == symbol_name(spec, find_target("rpi5"))  # the same machine to us


def test_progress_counts_to_the_number_of_distinct_kernels(own_cache):
    seen = []
    build_toys([ToySpec(1.0), ToySpec(2.0), ToySpec(1.0)], "x86", lambda done, total: seen.append((done, total)))
    assert seen[0] == (0, 2) and seen[-1] == (2, 2)


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("abort", "crashed with SIGABRT"),
        ("raise", "failed"),
        ("hang", "did not finish within 1 s"),
        ("libm", "failed"),
        ("copy", "failed"),
    ],
)
def test_a_failing_kernel_is_named(behaviour, reason, monkeypatch):
    monkeypatch.setattr(build_module, "KERNEL_TIMEOUT", 1 if behaviour == "hang" else 60)
    spec = ToySpec(behaviour=behaviour)
    with pytest.raises(UserError) as caught:
        build_toys([ToySpec(), spec] if behaviour != "hang" else [spec], "x86")
    assert caught.value.code == "E0404"
    assert f"the code generator {reason} on kernel `edgec_f32_toy_{behaviour}__" in caught.value.message
    expected = {
        "abort": "about to abort",
        "raise": "no such tile",
        "hang": "",
        "libm": "from outside: expf",
        "copy": "calls itself",
    }
    assert expected[behaviour] in caught.value.hint


def test_when_one_kernel_fails_the_others_are_stopped(own_cache, tmp_path, monkeypatch):
    monkeypatch.setattr(build_module.os, "sched_getaffinity", lambda pid: range(2))
    monkeypatch.setenv("EDGEC_TEST_PID", str(tmp_path / "pid"))
    with pytest.raises(UserError, match="crashed with SIGABRT"):
        build_toys([ToySpec(behaviour="hang"), ToySpec(behaviour="abort after hang")], "x86")
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


_HANGING = """
import sys
sys.path.insert(0, {folder!r})
from toys import ToySpec, build_toys
build_toys([ToySpec(behaviour="hang")], "x86")
"""


def test_a_killed_caller_leaves_nothing_running(own_cache, tmp_path, monkeypatch):
    note = tmp_path / "pid"
    monkeypatch.setenv("EDGEC_TEST_PID", str(note))
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # nobody is left to remove the folder of the build
    caller = subprocess.Popen([sys.executable, "-c", _HANGING.format(folder=str(Path(__file__).parent))])
    wait_until(lambda: note.exists() and note.read_text())
    caller.kill()
    caller.wait()
    wait_until(lambda: not Path(f"/proc/{note.read_text()}").exists())


def wait_until(condition) -> None:
    """Up to half a minute, which is long after it should have come true."""
    for _ in range(300):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("it never came true")


def test_concurrent_processes_share_a_cache(own_cache):
    """Both start from nothing and may compile the same kernels; both get the same image."""
    program = [sys.executable, "-c", _WARM.format(folder=str(Path(__file__).parent))]
    running = [subprocess.Popen(program, stdout=subprocess.PIPE) for _ in range(2)]
    images = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert images[0] == images[1] == build_toys([ToySpec()], "rpi4").data
    assert len(list(own_cache.glob("*/*"))) == 1


def test_a_failing_import_of_the_generator_is_ours():
    with pytest.raises(InternalError, match="no_such_emitter"):
        build([ToySpec()], find_target("x86"), emitter="no_such_emitter")


def test_missing_tvm_is_the_users_to_install(own_cache, monkeypatch):
    monkeypatch.setattr(build_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError) as caught:
        build_toys([ToySpec()], "x86")
    assert caught.value.code == "E0402" and "pip install apache-tvm" in caught.value.hint


_WARM = """
import sys
sys.path.insert(0, {folder!r})
from toys import ToySpec, build_toys
image = build_toys([ToySpec()], "rpi4")
assert not any(name.partition(".")[0] == "tvm" for name in sys.modules), "tvm was loaded"
sys.stdout.buffer.write(image.data)
"""


def test_neither_a_cold_nor_a_warm_build_loads_tvm_here_and_a_warm_one_forks_nothing(own_cache, monkeypatch):
    folder = str(Path(__file__).parent)
    cold = subprocess.run([sys.executable, "-c", _WARM.format(folder=folder)], capture_output=True, check=True)

    def refuse(*_, **__):
        raise AssertionError("a warm build compiled something")

    monkeypatch.setattr(build_module, "run_isolated", refuse)
    assert build_toys([ToySpec()], "rpi4").data == cold.stdout


def test_another_generator_does_not_get_old_kernels(monkeypatch, own_cache):
    build_toys([ToySpec()], "x86")
    monkeypatch.setattr(build_module, "generator_version", lambda: "changed")
    build_toys([ToySpec()], "x86")
    assert len(list(own_cache.glob("*/*"))) == 2


def test_c_source_target_has_a_table_that_compiles(tmp_path):
    compiler = toolchain(find_target("cortex-m7").arch).compiler.path()
    specs = [ToySpec(1.5), ToySpec(2.5)]
    image = build_toys(specs, "cortex-m7")
    assert image.kind == "c" and sorted(image.entries.values()) == [0, 1]
    order = sorted(image.names.values())
    assert all(order[image.entries[spec]] == image.names[spec] for spec in specs)
    (tmp_path / "kernels.c").write_bytes(image.data)
    machine = ["-mcpu=cortex-m7", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv5-sp-d16"]
    flags = ["-std=c11", "-O2", "-Wall", "-Werror", "-Wno-unused-function", "-ffreestanding", "-c"]
    subprocess.run([compiler, *machine, *flags, "kernels.c"], cwd=tmp_path, check=True)
