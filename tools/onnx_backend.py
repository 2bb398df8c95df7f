"""An ONNX model on arrays, compiled for this machine and run in the C runtime: for conformance suites.

    outputs = run(model, inputs)

    with compile_case(model, inputs) as case:  # one artifact, any data
        outputs = case.run(other_inputs)

Shapes come from the given arrays. Inputs that decide shapes or structure (`STRUCTURAL_SLOTS`: the shape of `Reshape`,
axes of reductions, ...) become constants of the program; everything else is data, and the artifact serves any.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from edgec.graph.errors import UserError
from edgec.runtime import Model, load
from edgec.tools.api import Request, build, parse_targets
from edgec.tools.onnx_backend_slots import STRUCTURAL_SLOTS, TYPE_ONLY


@dataclass(frozen=True)
class CompiledCase:
    """A model in compiled kernels, for any data of the shapes and dtypes that it was compiled with.

    `bound` are the inputs that became constants of the program, by name.
    """

    model: onnx.ModelProto
    bound: dict[str, np.ndarray]
    _artifact: Model

    def run(self, inputs: Sequence[np.ndarray | None]) -> list[np.ndarray]:
        """The outputs in the order of the model, of inputs as `compile_case` takes them.

        UserError: E0603 for another value of a bound input; E0602 and E0603 for other dtypes and shapes.
        """
        feeds = _feeds(self.model, inputs)
        for name, array in self.bound.items():
            if not np.array_equal(array, feeds.get(name), equal_nan=array.dtype.kind == "f"):
                raise UserError("E0603", f"the case is compiled for one value of `{name}`, and gets another")
        wanted = {info.name for info in self._artifact.inputs}
        results = self._artifact.run({name: array for name, array in feeds.items() if name in wanted})
        return [results[info.name] for info in self.model.graph.output]


@contextmanager
def compile_case(model: onnx.ModelProto, inputs: Sequence[np.ndarray | None]) -> Iterator[CompiledCase]:
    """`model` compiled for the shapes of `inputs`, which are in the order of the inputs without initializer; None or a
    missing one at the end is an optional input that is not given.

    UserError for models that cannot be compiled, E0103 for values that are no tensors.
    """
    feeds = _feeds(model, inputs)
    bound = {name: feeds[name] for name in structural_names(model) & feeds.keys()}
    with tempfile.TemporaryDirectory(prefix="edgec-onnx-") as folder:
        path = Path(folder) / "model.edge"
        # In a model, 0 stands for an extent that nobody knows.
        empty = {name: array.shape for name, array in feeds.items() if not array.size and name not in bound}
        build(Request(_static(model, feeds, bound), parse_targets("x86"), shapes=empty), path)
        with load(path, threads=1) as artifact:
            yield CompiledCase(model, bound, artifact)


def run(model: onnx.ModelProto, inputs: Sequence[np.ndarray | None]) -> list[np.ndarray]:
    """The outputs of `model` in its order; arguments and errors as of `compile_case`."""
    with compile_case(model, inputs) as case:
        return case.run(inputs)


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
    """Names of everything whose value a structural slot reads, directly or through other nodes; of bodies, too."""
    wanted: set[str] = set()
    for node in reversed(list(_all_nodes(model.graph))):
        slots = STRUCTURAL_SLOTS.get(node.op_type, ()) if node.domain in ("", "ai.onnx") else ()
        wanted.update(node.input[slot] for slot in slots if slot < len(node.input) and node.input[slot])
        if node.op_type not in TYPE_ONLY and not wanted.isdisjoint(node.output):
            wanted.update(name for name in node.input if name)
            wanted.update(info.name for body in _bodies(node) for info in body.output)
    return wanted


def _all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The nodes, each behind those of the bodies in it."""
    for node in graph.node:
        for body in _bodies(node):
            yield from _all_nodes(body)
        yield node


def _bodies(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    return [attribute.g for attribute in node.attribute if attribute.type == onnx.AttributeProto.GRAPH]


def _static(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray], bound: Collection[str]) -> onnx.ModelProto:
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
