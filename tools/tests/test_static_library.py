"""Static libraries: the folder builds alone, uses the memory it says, checks what it runs, and computes the same."""

from __future__ import annotations

import json
import shutil
import subprocess

import numpy as np
import onnx
import pytest

from edgec.backends.targets import c_flags, find_target
from edgec.backends.tvm.backend import TvmBackend
from edgec.compiler.compile import CompileResult, compile_module
from edgec.compiler.passbase import Options
from edgec.compiler.train import Train
from edgec.graph.parse import parse_module
from edgec.runtime import load
from edgec.runtime.layout import write_artifact
from edgec.tools.cli import main
from edgec.tools.static_library import StaticLibrary, identifier, write_static
from edgec.tools.testing.cortex_m import TrainingRun, run_training_here
from edgec.tools.testing.models import small_cnn_onnx
from edgec.tools.testing.programs import initialise

# Two names that C cannot tell apart.
MODEL = """
graph infer {
  input %x.a: f32[2,3,6,6]
  input %x_a: f32[2,4,6,6]
  param %w: f32[4,3,3,3]
  param %head: f32[4,5]
  %c: f32[2,4,6,6] = conv2d(%x.a, %w) {pads=(1,1,1,1)}
  %h: f32[2,4,6,6] = hard_swish(%c)
  %s: f32[2,4,6,6] = add(%h, %x_a)
  %p: f32[2,4] = reduce_mean(%s) {axes=(2,3)}
  %logits: f32[2,5] = matmul(%p, %head)
  output "logits" = %logits
}
"""
STEPS = 3
STRICT = ["-Wall", "-Wextra", "-Wconversion", "-Wpedantic", "-Werror"]


def compiled(target: str) -> CompileResult:
    options = Options(train=Train(momentum=0.9))
    result = compile_module(initialise(parse_module(MODEL)), [TvmBackend(find_target(target))], options)
    assert result is not None
    return result


@pytest.fixture(scope="module")
def feeds() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    images = {name: rng.standard_normal((STEPS, 2, c, 6, 6)).astype(np.float32) for name, c in (("x.a", 3), ("x_a", 4))}
    return images | {"labels": rng.integers(0, 5, (STEPS, 2)), "lr": np.full(STEPS, 0.1, np.float32)}


@pytest.fixture(scope="module")
def native() -> CompileResult:
    return compiled("x86")


@pytest.fixture(scope="module")
def portable(tmp_path_factory: pytest.TempPathFactory) -> StaticLibrary:
    return write_static(compiled("cortex-m7"), tmp_path_factory.mktemp("portable"), "tiny")


@pytest.fixture(scope="module")
def portable_run(portable: StaticLibrary, feeds: dict[str, np.ndarray]) -> TrainingRun:
    return run_training_here(portable, feeds)


def test_opening_uses_all_of_the_memory_and_closing_gives_it_back(portable_run):
    """The harness opens twice."""
    assert portable_run.used_bytes == portable_run.memory_bytes > 0


def test_planned_memory_is_that_of_the_target(native, portable, portable_run, feeds, tmp_path):
    library = write_static(native, tmp_path, "tiny")
    assert run_training_here(library, feeds).memory_bytes == library.memory_bytes
    assert portable.memory_bytes < portable_run.memory_bytes  # pointers of 4 bytes there, of 8 here


def test_machine_code_gives_the_bits_of_the_artifact(native, feeds, tmp_path):
    """The same kernels, linked instead of mapped."""
    run = run_training_here(write_static(native, tmp_path / "lib", "tiny"), feeds)
    write_artifact(tmp_path / "tiny.edge", native.artifact)
    with load(tmp_path / "tiny.edge", threads=1) as model:
        rows = [{name: array[step] for name, array in feeds.items()} for step in range(STEPS)]
        infer = {name: rows[0][name] for name in ("x.a", "x_a")}
        before = model.run(infer)["logits"]
        losses = [model.step({k: v for k, v in row.items() if k != "lr"}, lr=float(row["lr"])) for row in rows]
        after = model.run(infer)["logits"]
    assert run.losses.tolist() == losses
    for there, here in zip(run.predictions, (before, after), strict=True):
        assert there.results["logits"].tobytes() == here.tobytes()
    assert not np.array_equal(before, after)


def test_c_and_vector_kernels_agree(native, portable_run, feeds, tmp_path):
    vector = run_training_here(write_static(native, tmp_path, "tiny"), feeds)
    np.testing.assert_allclose(portable_run.losses, vector.losses, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("target", ["cortex-m4", "cortex-m7", "cortex-m55", "riscv32"])
def test_sources_have_no_warning(target, portable, tmp_path):
    """The text is the same for all targets without vectors; the flags are not."""
    compiler = "riscv64-unknown-elf-gcc" if target == "riscv32" else "arm-none-eabi-gcc"
    if not shutil.which(compiler):
        pytest.skip(f"{compiler} is not installed")
    flags = [*c_flags(find_target(target)), *STRICT, f"-I{portable.folder}", f"-I{portable.folder / 'edgec'}"]
    subprocess.run([compiler, *flags, "-c", *portable.sources], cwd=tmp_path, check=True)


def test_the_folder_builds_alone_for_another_machine(tmp_path):
    if not shutil.which("aarch64-linux-gnu-gcc") or not shutil.which("qemu-aarch64-static"):
        pytest.skip("needs gcc-aarch64-linux-gnu and qemu-user-static")
    library = write_static(compiled("rpi4"), tmp_path, "tiny")
    words = next(line for line in (tmp_path / "README.md").read_text().splitlines() if "-o example" in line)
    subprocess.run(f"{words} -static", shell=True, cwd=tmp_path, check=True)
    command = ["qemu-aarch64-static", "-cpu", "cortex-a72", tmp_path / "example"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert f"rpi4: {library.memory_bytes} bytes of memory" in text and "infer: success" in text


def test_a_damaged_artifact_is_refused(portable, tmp_path):
    """The reader of files checks constants too."""
    folder = shutil.copytree(portable.folder, tmp_path / "damaged")
    path = folder / "tiny_artifact.c"
    before, last = path.read_text().rsplit("0x", 1)
    path.write_text(f"{before}0x{'1' if last[0] == '0' else '0'}{last[1:]}")
    subprocess.run("cc -std=gnu11 -w -Iedgec *.c edgec/*.c -o example", shell=True, cwd=folder, check=True)
    done = subprocess.run([folder / "example"], capture_output=True, text=True)
    assert done.returncode == 1 and "damaged" in done.stdout


@pytest.mark.parametrize(
    ("name", "word"), [("small-cnn v2", "small_cnn_v2"), ("3d", "model_3d"), ("edgec", "model_edgec"), ("é", "_")]
)
def test_names_become_identifiers(name, word):
    assert identifier(name) == word


# ---- The command. ----


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    onnx.save(small_cnn_onnx(), tmp_path / "cnn.onnx")
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as caught:
            main(["compile", "cnn.onnx", "--batch", "1", *words])
        return caught.value.code, capsys.readouterr().out

    return run


def test_emit_static_says_what_it_planned(command, tmp_path):
    status, out = command("--target", "cortex-m7", "--emit", "static", "lib", "--json")
    figures = json.loads(out)["static"]
    assert status == 0
    header = (tmp_path / "lib/cnn.h").read_text()
    assert f"#define CNN_ARTIFACT_BYTES {figures['artifact_bytes']}u" in header
    assert figures["memory_bytes"] > json.loads(out)["programs"]["infer"]["arena_bytes"]
    assert (tmp_path / "lib/cnn.edge").exists()  # for `edgec memory` and `edgec inspect`


def test_micro_controllers_get_sources_without_asking(command, tmp_path):
    status, out = command("--target", "cortex-m4")
    assert status == 0 and "cnn.static: C sources" in out
    assert (tmp_path / "cnn.static/cnn_kernels.c").exists() and (tmp_path / "cnn.edge").exists()


def test_a_static_library_is_for_one_target(command, tmp_path):
    assert command("--target", "x86,cortex-m7", "--emit", "static", "lib")[0] == 2
    assert not (tmp_path / "lib").exists()


def test_a_folder_that_cannot_be_made(command, tmp_path):
    (tmp_path / "file").write_text("")
    assert command("--target", "x86", "--emit", "static", "file/lib")[0] == 1
