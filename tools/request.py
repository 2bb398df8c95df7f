"""`Request`: what to compile, and for what; what `compile`, `check` and `search` begin with."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from edgec import __version__
from edgec.backends.base import Target
from edgec.backends.targets import find_target
from edgec.backends.tvm.backend import TvmBackend
from edgec.backends.tvm.tuning.database import find_tuning, fingerprint, records_for
from edgec.compiler.adapt import ImageInput, NewHead
from edgec.compiler.byte_sizes import wanted_bytes
from edgec.compiler.passbase import Options
from edgec.compiler.train import Train
from edgec.frontend.onnx import read_onnx
from edgec.frontend.onnx.reader import Source
from edgec.frontend.torch import is_torch, read_torch
from edgec.graph.errors import UserError
from edgec.graph.ir import Module

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from edgec.frontend.torch import TorchSource

    Model = Source | TorchSource

Shapes = Mapping[str, tuple[int, ...]]
ExampleInputs = Sequence[object] | Mapping[str, object]


@dataclass(frozen=True)
class Request:
    """What to compile, and for what. `model` is an ONNX model (a path, its bytes or a `ModelProto`) or one of torch: a
    module, an `ExportedProgram` or a `.pt2` path.

    shapes: of inputs by name, where the model leaves them open.
    batch: the leading extent that inputs of the `infer` program get where the model leaves it open.
    values: of inputs of an ONNX model that never change, by name: the artifact does not have them.
    example_inputs: the arguments of a torch module's forward.
    new_head, images: what is changed in the model, see `compiler/adapt.py`.
    memory_budget: bytes of arena that `infer` may take where nothing is trained; `train` has a budget of its own.
    tuning: a database of `edgec tune`, or "off"; by default the user's.
    originals: "drop" leaves out what `Model.parameters()` gives and no program reads.
    """

    model: Model
    targets: tuple[Target, ...]
    shapes: Shapes = field(default_factory=dict)
    batch: int | None = None
    train: Train | None = None
    example_inputs: ExampleInputs | None = None
    new_head: NewHead | None = None
    images: Mapping[str, ImageInput] = field(default_factory=dict)
    values: Mapping[str, ArrayLike] = field(default_factory=dict)
    memory_budget: int | None = None
    originals: Literal["keep", "drop"] = "keep"
    tuning: str | Path | None = None

    @property
    def options(self) -> Options:
        return Options(self.train, self.new_head, self.images, self.memory_budget, self.originals)

    def backends(self) -> list[TvmBackend]:
        """One for each target. UserError E0507, E0508 for the tuning database."""
        tuning = find_tuning(self.tuning)
        return [TvmBackend(target, tuning) for target in self.targets]

    def read(self) -> Module:
        """The imported module. UserError E01.."""
        if not is_torch(self.model):
            return read_onnx(self.model, shapes=self.shapes, batch=self.batch, values=self.values)
        if self.values:
            hint = "fix the argument in a module around this one"
            raise UserError("E0105", "values can be given for inputs of ONNX models only", hint=hint)
        return read_torch(self.model, self.example_inputs, shapes=self.shapes, batch=self.batch)

    def provenance(self) -> dict:
        """For the manifest: where the artifact comes from. No path, no date: equal input gives equal bytes."""
        fixed = {"values": {name: np.asarray(value).tolist() for name, value in self.values.items()}}
        tuning = records_for(find_tuning(self.tuning), self.targets)
        tuned = {"tuning": fingerprint(tuning)} if tuning.records else {}
        made = {"edgec": __version__, **tuned, **(fixed if self.values else {})}
        if not isinstance(self.model, str | Path):
            return made
        with open(self.model, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        name = os.fsencode(Path(self.model).name).decode(errors="backslashreplace")  # manifests are UTF-8
        return {**made, "model": name, "model_sha256": digest}


def inference_budget(budget: int | str | None, train: Train | None) -> int | None:
    """The budget of a model that is not trained, in bytes. UserError E0302."""
    if budget is not None and train is not None:
        hint = "Train(memory_budget=...) bounds what training takes"
        raise UserError("E0302", "a training step has its own budget", where="memory_budget", hint=hint)
    return wanted_bytes("memory_budget", budget)


def refuse_unknown(model: object, example_inputs: ExampleInputs | None) -> None:
    """UserError E0101 for what is no model, E0109 for example inputs of one that has its shapes."""
    torch_module = is_torch(model) and hasattr(model, "named_parameters") and not hasattr(model, "graph_signature")
    if example_inputs is not None and not torch_module:
        hint = "shapes={name: (1, 3, 224, 224)} sets the shapes of other models"
        raise UserError("E0109", "example inputs are for torch modules", hint=hint)
    # A `ModelProto` is known by what it has: onnx need not be imported to say that something is none.
    if is_torch(model) or isinstance(model, str | Path | bytes) or hasattr(model, "opset_import"):
        return
    kind = f"{type(model).__module__}.{type(model).__qualname__}"
    hint = "an ONNX model (.onnx), a torch.nn.Module, an ExportedProgram or a .pt2 file"
    raise UserError("E0101", f"a `{kind}` is not a model that edgec reads", hint=hint)


def parse_targets(names: str | Sequence[str]) -> tuple[Target, ...]:
    """`x86,rpi4` or a sequence of names, each once. UserError E0401."""
    words = names.split(",") if isinstance(names, str) else names
    return tuple(find_target(name) for name in dict.fromkeys(word.strip() for word in words))
