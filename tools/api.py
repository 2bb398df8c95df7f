"""`edgec.compile` and what commands share with it: a model and a few options in, an artifact and its figures out."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from edgec import __version__
from edgec.backends.base import Target
from edgec.backends.targets import find_target
from edgec.backends.toolchain import apt_command, toolchain
from edgec.backends.tvm.backend import TvmBackend
from edgec.compiler.adapt import ImageInput, NewHead
from edgec.compiler.budget import schedule_target
from edgec.compiler.byte_sizes import wanted_bytes
from edgec.compiler.compile import CompileResult, Observer, compile_module, refuse_unsupported
from edgec.compiler.passbase import Options, Trace
from edgec.compiler.passes.derive_gradients import gradient_ends
from edgec.compiler.pipeline import transform_module
from edgec.compiler.report import ProgramFigures, Report, program_figures
from edgec.compiler.train import Train
from edgec.frontend.onnx import read_onnx
from edgec.frontend.onnx.reader import Source
from edgec.frontend.torch import is_torch, lost_randomness, read_torch
from edgec.graph.errors import InternalError, UserError
from edgec.graph.ir import Module, Role
from edgec.runtime.check import check_artifact
from edgec.runtime.errors import RuntimeFailure
from edgec.runtime.format import TensorKind
from edgec.runtime.layout import write_artifact

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from edgec.frontend.torch import TorchSource

    Model = Source | TorchSource

Shapes = Mapping[str, tuple[int, ...]]
_PIECE = 1 << 20  # elements
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

    @property
    def options(self) -> Options:
        return Options(self.train, self.new_head, self.images, self.memory_budget, self.originals)

    def backends(self) -> list[TvmBackend]:
        return [TvmBackend(target) for target in self.targets]

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
        made = {"edgec": __version__, **(fixed if self.values else {})}
        if not isinstance(self.model, str | Path):
            return made
        with open(self.model, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        name = os.fsencode(Path(self.model).name).decode(errors="backslashreplace")  # manifests are UTF-8
        return {**made, "model": name, "model_sha256": digest}


def compile(
    model: Model,
    *,
    target: str | Sequence[str] = "x86",
    out: str | Path,
    shapes: Shapes | None = None,
    batch: int | None = None,
    train: Train | None = None,
    example_inputs: ExampleInputs | None = None,
    new_head: int | NewHead | None = None,
    images: Mapping[str, ImageInput] | None = None,
    values: Mapping[str, ArrayLike] | None = None,
    memory_budget: int | str | None = None,
    originals: Literal["keep", "drop"] = "keep",
) -> Report:
    """Compile an ONNX or torch model, with its training step if `train` is given, and write the artifact to `out`.

    target: one name or several; `edgec targets` lists them. UserError with what is wrong and what to do.
    example_inputs: the arguments of a torch module's forward, in order or by name; they fix its shapes.
    new_head: so many outputs of a fresh dense layer instead of the last one's, of which the scalar `classes` are live.
    images: inputs by name that take u8 images [N,H,W,C], with their mean and standard deviation.
    values: inputs of an ONNX model that never change, such as a sampling rate; the artifact does not have them.
    memory_budget: bytes of arena, or `256KB`, of a model that is not trained (E0405); of training, `Train` says it.
    originals: "drop" makes a smaller artifact, whose `parameters()` lack what no program reads, such as folded weights.

        edgec.compile("m.onnx", target="rpi4", shapes={"x": (1, 3, 224, 224)}, out="m.edge", train=edgec.Train(batch=8))
        edgec.compile(torch_module, example_inputs=(x,), target="rpi4", out="m.edge")
    """
    _refuse_unknown(model, example_inputs)
    head = NewHead(new_head) if isinstance(new_head, int) else new_head
    targets = parse_targets(target)
    request = Request(
        model,
        targets,
        shapes or {},
        batch,
        train,
        example_inputs,
        head,
        images or {},
        values or {},
        inference_budget(memory_budget, train),
        originals,
    )
    result = build(request, Path(out))
    assert result is not None  # nothing asked to stop early
    for warning in weight_warnings(result) + _dropout_warnings(request):
        warnings.warn(warning, stacklevel=2)
    return result.report


def inference_budget(budget: int | str | None, train: Train | None) -> int | None:
    """The budget of a model that is not trained, in bytes. UserError E0302."""
    if budget is not None and train is not None:
        hint = "Train(memory_budget=...) bounds what training takes"
        raise UserError("E0302", "a training step has its own budget", where="memory_budget", hint=hint)
    return wanted_bytes("memory_budget", budget)


def _refuse_unknown(model: object, example_inputs: ExampleInputs | None) -> None:
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


def build(request: Request, out: Path, observer: Observer | None = None) -> CompileResult | None:
    """Compile and write. None, with nothing written, where the observer's trace stops before the end."""
    # Before minutes of work rather than after.
    _refuse_unwritable(out)
    _require_linkers(request.targets)
    module = request.read()
    result = compile_module(
        module, request.backends(), request.options, provenance=request.provenance(), observer=observer
    )
    if result is None:
        return None
    try:
        write_artifact(out, result.artifact, inspect=_accepted)
    except OSError as error:
        raise UserError("E0505", f"cannot write the artifact: {error.strerror}", where=str(out)) from error
    report = dataclasses.replace(result.report, artifact_bytes=out.stat().st_size)
    return dataclasses.replace(result, report=report)


def weight_warnings(result: CompileResult) -> list[str]:
    """Parameters that are not finite: the model was damaged in training, and no input will give a sensible output."""
    return [
        f"parameter `{tensor.name}` holds values that are not finite"
        for tensor in result.artifact.tensors
        if tensor.kind is TensorKind.PARAM and tensor.data.dtype.kind == "f" and not _is_finite(tensor.data.reshape(-1))
    ]


def _dropout_warnings(request: Request) -> list[str]:
    """What a torch module draws in training and its artifact will not. Of a `.pt2` file nobody can know."""
    if request.train is None or request.train.dropout == "off" or request.example_inputs is None:
        return []
    layers = lost_randomness(request.model, request.example_inputs)
    if not layers:
        return []
    listed = ", ".join(layers[:3]) + (f" and {len(layers) - 3} more" if len(layers) > 3 else "")
    return [
        f"training leaves out what {listed} would draw at random: torch exports dropout of elements alone; "
        'use torch.nn.Dropout there, or dropout="off" to train without any'
    ]


def _is_finite(flat: np.ndarray) -> bool:
    """Piece by piece: a large weight is mapped from its file."""
    return all(np.isfinite(flat[start : start + _PIECE]).all() for start in range(0, flat.size, _PIECE))


def _accepted(path: Path) -> None:
    """What a device would refuse is a bug of ours, and is never left behind."""
    try:
        check_artifact(path)
    except RuntimeFailure as error:
        raise InternalError(f"the runtime refuses what was compiled: {error.message}") from error


def _refuse_unwritable(out: Path) -> None:
    """UserError E0505. A device is refused: the artifact would take its place."""
    if not out.parent.is_dir():
        raise UserError("E0505", f"there is no folder `{out.parent}`", where=str(out))
    if out.exists() and not out.is_file():
        raise UserError("E0505", "there is something else than a file", where=str(out))


def _require_linkers(targets: Sequence[Target]) -> None:
    """UserError E0402 for the first target whose code cannot be linked here."""
    for target in targets:
        linker = None if target.c_source else toolchain(target.arch).linker
        if linker is not None and linker.path() is None:
            message, hint = f"`{linker.names[0]}` is needed to link kernels", apt_command(linker.packages)
            raise UserError("E0402", message, where=f"target {target.name}", hint=hint)


@dataclass(frozen=True)
class Forecast:
    """What `edgec check` knows without generating code: bytes of parameters, figures by target and program.

    no_gradient: operators between trained parameters and the loss that pass no gradient on: node, op, reason.
    untrained: parameters that the update scheme trains and that no gradient reaches.
    """

    param_bytes: int
    trained_bytes: int
    programs: dict[str, dict[str, ProgramFigures]]
    no_gradient: list[dict[str, str]]
    untrained: list[str]

    def training_bytes(self) -> dict[str, int]:
        """By target what a memory budget counts: arena, state and the RAM copies of trained parameters of `train`."""
        return {
            target: programs["train"].arena_bytes + programs["train"].state_bytes + self.trained_bytes
            for target, programs in self.programs.items()
            if "train" in programs
        }


def problems(request: Request) -> list[UserError]:
    """All that stands in the way of compiling: what cannot be imported, or else differentiated or lowered."""
    found = []
    attempts = [request, dataclasses.replace(request, train=None)] if request.train else [request]
    for attempt in attempts:
        try:
            module = attempt.read()
        except UserError as error:
            return [error]  # nothing more can be known of a model that is not understood
        try:
            transform_module(module, attempt.options, Trace())
        except UserError as error:
            found.append(error)
            continue  # without training, to see what has no lowering
        for backend in attempt.backends():
            try:
                refuse_unsupported(module, [backend])
            except UserError as error:
                found.append(error)
        break
    return found


def check(request: Request) -> Forecast:
    """All phases but code generation, for every target: UserError for the first that fails, with every node's name."""
    module, backends = request.read(), request.backends()
    no_gradient: list[dict[str, str]] = []

    def look(name: str) -> None:
        if name == "derive_gradients" and "train" in module.programs:
            no_gradient.extend(gradient_ends(module.programs["train"]))

    transform_module(module, request.options, Trace(observe=look))
    refuse_unsupported(module, backends)
    programs: dict[str, dict[str, ProgramFigures]] = {}
    for backend in backends:
        schedules = schedule_target(module, backend, request.options, Trace())
        programs[backend.target.name] = {
            name: program_figures(module, name, [schedules.programs[name]]) for name in module.programs
        }
    # Constants count: a folded weight is one.
    params = {
        leaf.name: leaf.type.bytes
        for graph in module.programs.values()
        for role in (Role.PARAM, Role.CONSTANT)
        for leaf in graph.by_role(role)
    }
    updated = module.updated_names()
    trained = params.keys() & updated
    leaves = module.programs["infer"].by_role(Role.PARAM)
    untrained = sorted({leaf.name for leaf in leaves if leaf.trainable and request.train} - updated)
    return Forecast(sum(params.values()), sum(params[name] for name in trained), programs, no_gradient, untrained)
