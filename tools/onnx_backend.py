"""An ONNX model on arrays, compiled for this machine and run in the C runtime: for conformance suites.

    outputs = run(model, inputs)

Shapes come from the given arrays. Inputs that decide shapes or structure (`STRUCTURAL_SLOTS`: the shape of `Reshape`,
axes of reductions, ...) become constants of the program; everything else is data, and the artifact serves any.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from edgec.graph.errors import UserError
from edgec.runtime import load
from edgec.tools.api import Request, build, parse_targets
from edgec.tools.onnx_backend_slots import STRUCTURAL_SLOTS, TYPE_ONLY


def run(model: onnx.ModelProto, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The outputs of `model` in its order. `inputs` are in the order of the inputs without initializer; None or a
    missing one at the end is an optional input that is not given.

    UserError for models that cannot be compiled, E0103 for values that are no tensors.
    """
    feeds = _feeds(model, inputs)
    bound = structural_names(model) & feeds.keys()
    static = _static(model, feeds, bound)
    with tempfile.TemporaryDirectory(prefix="edgec-onnx-") as folder:
        artifact = Path(folder) / "model.edge"
        build(Request(static, parse_targets("x86")), artifact)
        with load(artifact, threads=1) as compiled:
            wanted = {info.name for info in compiled.inputs}
            results = compiled.run({name: array for name, array in feeds.items() if name in wanted})
            return [results[info.name] for info in model.graph.output]


def preload() -> None:
    """Load the code generator in this process, so that forks of it need not: seconds for each model otherwise."""
    torch = sys.modules.get("torch")
    # tvm imports torch where it finds it, which takes twice as long as tvm itself and serves nobody here.
    sys.modules["torch"] = None
    try:
        importlib.import_module("edgec.backends.tvm.codegen")
        importlib.import_module("edgec.backends.tvm.emitters")
    finally:
        del sys.modules["torch"]
        if torch is not None:
            sys.modules["torch"] = torch


def _feeds(model: onnx.ModelProto, inputs: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    initialized = {tensor.name for tensor in model.graph.initializer}
    names = [info.name for info in model.graph.input if info.name not in initialized]
    feeds = {}
    for name, value in zip(names, inputs, strict=False):
        if isinstance(value, np.ndarray | np.generic):
            feeds[name] = np.asarray(value)
        elif value is not None:
            raise UserError("E0103", f"input `{name}` is a {type(value).__name__}; tensors are supported")
    return feeds


def structural_names(model: onnx.ModelProto) -> set[str]:
    """Names of everything whose value a structural slot reads, directly or through other nodes."""
    wanted: set[str] = set()
    for node in reversed(model.graph.node):
        slots = STRUCTURAL_SLOTS.get(node.op_type, ()) if node.domain in ("", "ai.onnx") else ()
        wanted.update(node.input[slot] for slot in slots if slot < len(node.input) and node.input[slot])
        if node.op_type not in TYPE_ONLY and not wanted.isdisjoint(node.output):
            wanted.update(name for name in node.input if name)
    return wanted


def _static(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray], bound: set[str]) -> onnx.ModelProto:
    """A copy with the types of `feeds` as types of its inputs; those in `bound` are initializers."""
    static = onnx.ModelProto()
    static.CopyFrom(model)
    kept = [info for info in static.graph.input if info.name not in feeds]
    del static.graph.input[:]
    for name, array in feeds.items():
        if name in bound:
            static.graph.initializer.append(numpy_helper.from_array(array, name))
        else:
            kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
            static.graph.input.append(onnx.helper.make_tensor_value_info(name, kind, array.shape))
    static.graph.input.extend(kept)
    return static


preload()
