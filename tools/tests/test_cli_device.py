"""Commands for devices load nothing that a device lacks, and `check` loads no code generator."""

import subprocess
import sys

import numpy as np
import onnx
import pytest

import edgec
from edgec.tools import api
from edgec.tools.testing.models import small_cnn_onnx

BATCH = 4
# What the extra `compile` brings, and what tests and peers use.
LACKING = ("tvm", "onnx", "ml_dtypes", "platformdirs", "rich", "torch", "onnxruntime")
# Imports of a package in `lacking` fail, as if it were not installed.
PROGRAM = """
import sys
lacking = sys.argv.pop(1).split(",")
sys.modules |= dict.fromkeys(lacking)
from edgec.tools.cli import main
try:
    main()
finally:
    loaded = {name for name, module in sys.modules.items() if module is not None and name.split(".")[0] in lacking}
    assert not loaded, loaded
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("device")
    onnx.save(small_cnn_onnx(), folder / "cnn.onnx")
    request = api.Request(
        folder / "cnn.onnx", api.parse_targets("x86"), batch=BATCH, train=edgec.Train(batch=BATCH, momentum=0.9)
    )
    api.build(request, folder / "cnn.edge")
    x = np.random.default_rng(0).random((2 * BATCH, 1, 28, 28), np.float32)
    np.savez(folder / "in.npz", x=x[:BATCH])
    np.savez(folder / "data.npz", x=x, labels=np.arange(2 * BATCH) % 10)
    return folder


def run_without(lacking: tuple[str, ...], folder, *words: str) -> subprocess.CompletedProcess:
    arguments = [sys.executable, "-c", PROGRAM, ",".join(lacking), *words]
    return subprocess.run(arguments, cwd=folder, capture_output=True, text=True)


@pytest.mark.parametrize(
    "command",
    [
        "run cnn.edge --input in.npz -o out.npz --check-finite",
        "train cnn.edge --data data.npz --eval-data data.npz --epochs 2 --lr 0.01 --checkpoint c.edgeckpt",
        "inspect cnn.edge --json",
        "inspect cnn.edge",
        "memory cnn.edge",
        "profile cnn.edge --program train --runs 1",
    ],
)
def test_numpy_and_click_are_enough_on_a_device(folder, command):
    done = run_without(LACKING, folder, *command.split())
    assert done.returncode == 0 and done.stdout and "Traceback" not in done.stderr, done.stderr


def test_what_a_device_cannot_do_says_what_to_install(folder):
    done = run_without(LACKING, folder, "compile", "cnn.onnx", "--batch", "1")
    assert done.returncode == 1 and "error[E0402]" in done.stderr and "edgec[compile]" in done.stderr


@pytest.mark.parametrize("options", ["--train --train-batch 8", "--update full --train", ""])
def test_check_needs_no_code_generator(folder, options):
    words = f"check cnn.onnx --batch 1 --target x86,rpi4,cortex-m7 {options}".split()
    done = run_without(("tvm", "torch", "onnxruntime", "rich"), folder, *words)
    assert done.returncode == 0 and ("train" in done.stdout) == bool(options), done.stderr
    assert "cortex-m7" in done.stdout
