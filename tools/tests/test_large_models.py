"""Weights beyond 2 GB in a file beside the model: mapped, never copied. Processes get little memory of their own."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from edgec.runtime.check import check_artifact

SIDE, LAYERS = 9728, 6
COMMAND = "from edgec.tools.cli import main; main()"


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """x f32[1,9728] through six dense layers; 2.1 GiB of zeros, which no disk holds."""
    weights, nodes, value, bytes_each = [], [], "x", SIDE * SIDE * 4
    for layer in range(LAYERS):
        weight = TensorProto(name=f"w{layer}", data_type=TensorProto.FLOAT, dims=[SIDE, SIDE], data_location=1)
        for key, entry in (("location", "weights"), ("offset", layer * bytes_each), ("length", bytes_each)):
            weight.external_data.add(key=key, value=str(entry))
        weights.append(weight)
        nodes.append(helper.make_node("MatMul", [value, weight.name], [f"y{layer}"], f"dense{layer}"))
        value = f"y{layer}"
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, SIDE]) for name in ("x", value)]
    graph = helper.make_graph(nodes, "large", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "m.onnx")
    with open(tmp_path / "weights", "wb") as file:
        file.truncate(LAYERS * bytes_each)
    return tmp_path


def run(folder: Path, memory: int, *words: str) -> subprocess.CompletedProcess:
    """`memory`: bytes of its own that the process may have; what it maps from files to read does not count."""
    return subprocess.run(
        [sys.executable, "-c", COMMAND, *words],
        cwd=folder,
        env=os.environ | {"EDGEC_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (memory, memory)),
        capture_output=True,
        text=True,
    )


def test_checking_maps_the_weights(large: Path):
    done = run(large, 300 << 20, "check", "m.onnx", "--target", "x86,rpi4")
    assert done.returncode == 0 and "parameters 2.1 GB" in done.stdout, done.stderr


@pytest.mark.long
def test_compiling_holds_one_weight_at_a_time(large: Path):
    done = run(large, 1200 << 20, "compile", "m.onnx", "--target", "rpi4")
    assert done.returncode == 0 and "parameters 2.1 GB" in done.stdout, done.stderr
    check_artifact(large / "m.edge")
    (large / "m.edge").unlink()  # pytest keeps the folders of its last runs
