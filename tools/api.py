"""`edgec.compile` and what commands share with it: a model and a few options in, an artifact and its figures out."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from edgec.backends.base import Target
from edgec.backends.toolchain import apt_command, toolchain
from edgec.compiler.adapt import ImageInput, NewHead
from edgec.compiler.budget import schedule_target
from edgec.compiler.compile import CompileResult, Observer, compile_module, refuse_unsupported
from edgec.compiler.passbase import Trace
from edgec.compiler.passes.derive_gradients import gradient_ends
from edgec.compiler.pipeline import transform_module
from edgec.compiler.report import ProgramFigures, Report, program_figures
from edgec.compiler.train import AUTO, Train
from edgec.frontend.torch import lost_randomness
from edgec.graph.errors import InternalError, UserError
from edgec.graph.ir import Role
from edgec.runtime.check import check_artifact
from edgec.runtime.errors import RuntimeFailure
from edgec.runtime.format import TensorKind
from edgec.runtime.layout import write_artifact
from edgec.tools.request import (
    ExampleInputs,
    Request,
    Shapes,
    inference_budget,
    parse_targets,
    refuse_unknown,
)
from edgec.tools.search.api import Data, with_found_scheme

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from edgec.tools.request import Model

_PIECE = 1 << 20  # elements


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
    tuning: str | Path | None = None,
    data: Data | None = None,
) -> Report:
    """Compile an ONNX or torch model, with its training step if `train` is given, and write the artifact to `out`.

    target: one name or several; `edgec targets` lists them. UserError with what is wrong and what to do.
    example_inputs: the arguments of a torch module's forward, in order or by name; they fix its shapes.
    new_head: so many outputs of a fresh dense layer instead of the last one's, of which the scalar `classes` are live.
    images: inputs by name that take u8 images [N,H,W,C], with their mean and standard deviation.
    values: inputs of an ONNX model that never change, such as a sampling rate; the artifact does not have them.
    memory_budget: bytes of arena, or `256KB`, of a model that is not trained (E0405); of training, `Train` says it.
    originals: "drop" makes a smaller artifact, whose `parameters()` lack what no program reads, such as folded weights.
    tuning: a database of `edgec tune`, or "off" for the cost model alone; by default the one in the cache folder.
    data: what `Train(update="auto", memory_budget=...)` measures with, as `edgec.search` takes it.

        edgec.compile("m.onnx", target="rpi4", shapes={"x": (1, 3, 224, 224)}, out="m.edge", train=edgec.Train(batch=8))
        edgec.compile(torch_module, example_inputs=(x,), target="rpi4", out="m.edge")
    """
    refuse_unknown(model, example_inputs)
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
        tuning,
    )
    if train is not None and train.update == AUTO:
        request = with_found_scheme(request, data)
    result = build(request, Path(out))
    assert result is not None  # nothing asked to stop early
    for warning in weight_warnings(result) + _dropout_warnings(request):
        warnings.warn(warning, stacklevel=2)
    return result.report


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
