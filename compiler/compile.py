"""`compile_module`: the whole way from an imported module to the records of an artifact, for one or several targets."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from edgec.backends.base import Backend, CodeImage
from edgec.compiler.budget import schedule_target
from edgec.compiler.pack import kernel_specs, pack_artifact
from edgec.compiler.passbase import Options, Phase, Trace
from edgec.compiler.pipeline import transform_module
from edgec.compiler.report import Report, code_figures, param_bytes, program_figures, variant_memory
from edgec.compiler.schedule import TargetSchedules
from edgec.graph.errors import UserError
from edgec.graph.ir import Graph, Module, Node
from edgec.runtime.abi import MAX_NAME, MAX_RANK
from edgec.runtime.format import Artifact

MANIFEST_VERSION = 1


@dataclass(frozen=True)
class CompileResult:
    """What a compilation made. `images` and `schedules` are per target, for those who look inside."""

    artifact: Artifact
    report: Report
    module: Module
    schedules: tuple[TargetSchedules, ...] = ()
    images: tuple[CodeImage, ...] = ()


# Told what is happening: the target, kernels done and kernels in all.
BuildProgress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Observer:
    """Who watches a compilation: dumps and stops (`trace`), and the progress of kernel builds."""

    trace: Trace = field(default_factory=Trace)
    progress: BuildProgress | None = None


def compile_module(
    module: Module,
    backends: Sequence[Backend],
    options: Options,
    *,
    provenance: Mapping[str, Any] | None = None,
    observer: Observer | None = None,
) -> CompileResult | None:
    """Run the pipeline; `module` becomes the target-independent program and is changed in place.

    `provenance` goes into the manifest as it is. None where `observer.trace` asks to stop before the end. UserError
    E0301 to E0303 for what cannot be trained, E0403 for nodes without a lowering, E0405 for a memory budget that cannot
    be met, E0402 and E0404 from the build.
    """
    began = time.perf_counter()
    observer = observer or Observer()
    if not transform_module(module, options, observer.trace):
        return None
    result = lower_module(module, backends, options, provenance=provenance, observer=observer)
    if result is None:
        return None
    return replace(result, report=replace(result.report, seconds=time.perf_counter() - began))


def lower_module(
    module: Module,
    backends: Sequence[Backend],
    options: Options,
    *,
    provenance: Mapping[str, Any] | None = None,
    observer: Observer | None = None,
) -> CompileResult | None:
    """The target half of `compile_module`, for a module that has been through the passes on modules."""
    observer = observer or Observer()
    refuse_unsupported(module, backends)
    built = []
    for backend in backends:
        schedules = schedule_target(module, backend, options, observer.trace)
        if schedules is None:
            return None
        built.append(schedules)
    if not observer.trace.wants(Phase.PACK):
        return None
    images = [_build(schedules, observer.progress) for schedules in built]
    artifact = pack_artifact(module, list(zip(built, images, strict=True)), {}, options.originals)
    report = _report(module, built, artifact)
    manifest = _manifest(report, artifact, built, images, options, provenance or {})
    if module.parts:
        manifest["parts"] = {name: parts.to_json() for name, parts in module.parts.items()}
    return CompileResult(replace(artifact, manifest=manifest), report, module, tuple(built), tuple(images))


def refuse_unsupported(module: Module, backends: Sequence[Backend]) -> None:
    """UserError E0103 for tensors that no artifact can hold; E0403 names every node without a lowering, by target."""
    _refuse_nameless(module)
    for backend in backends:
        missing: dict[str, dict[str, str]] = {}
        for graph in module.programs.values():
            for node in graph.nodes:
                reason = backend.unsupported(node)
                if reason is not None:
                    record = {"node": node.source, "op": node.op.name, "program": graph.name, "reason": reason}
                    missing.setdefault(_describe(graph, node), record)
        if missing:
            lines = [f"  {node}: {record['reason']}" for node, record in missing.items()]
            message = "\n".join([f"target {backend.target.name} cannot run:", *lines])
            raise UserError("E0403", message, where=f"target {backend.target.name}", nodes=list(missing.values()))


def _refuse_nameless(module: Module) -> None:
    """The limits of an artifact's tables, for the tensors that stand in them."""
    problems: dict[str, None] = {}
    for graph in module.programs.values():
        named = {leaf.name: leaf.type for leaf in graph.leaves.values()}
        named |= {name: value.type for name, value in graph.outputs.items()}
        for name, kind in named.items():
            if kind.rank > MAX_RANK:
                problems[f"  `{name}` has {kind.rank} axes; an artifact has tensors of up to {MAX_RANK}"] = None
            size = len(name.encode())
            if size > MAX_NAME or "\0" in name:
                problems[f"  `{name[:40]}...` has a name of {size} bytes; up to {MAX_NAME} are possible"] = None
    if problems:
        hint = "reshape them inside the model, and give them short names"
        message = "\n".join(["some tensors have no place in an artifact:", *problems])
        raise UserError("E0103", message, where="inputs, outputs and parameters", hint=hint)


def _describe(graph: Graph, node: Node) -> str:
    source = f" (`{node.source}`)" if node.source else ""
    return f"{node.op.name}{source} of program `{graph.name}`"


def _build(schedules: TargetSchedules, progress: BuildProgress | None) -> CodeImage:
    specs = list(dict.fromkeys(kernel_specs(schedules)))
    backend = schedules.backend
    if progress is None:
        return backend.build(specs)
    return backend.build(specs, progress=lambda done, total: progress(backend.target.name, done, total))


def _report(module: Module, built: Sequence[TargetSchedules], artifact: Artifact) -> Report:
    return Report(
        targets=tuple(schedules.backend.target.name for schedules in built),
        artifact_bytes=0,
        param_bytes=max(param_bytes(artifact, variant) for variant in artifact.variants),
        seconds=0.0,
        programs={
            name: program_figures(module, name, [schedules.programs[name] for schedules in built])
            for name in module.programs
        },
    )


def _manifest(
    report: Report,
    artifact: Artifact,
    built: Sequence[TargetSchedules],
    images: Sequence[CodeImage],
    options: Options,
    provenance: Mapping[str, Any],
) -> dict:
    figures = report.to_json()
    return {
        "manifest_version": MANIFEST_VERSION,
        "provenance": dict(provenance),
        "train": None if options.train is None else options.train.to_json(),
        "new_head": None if options.new_head is None else vars(options.new_head),
        "images": {name: vars(image) for name, image in options.images.items()},
        "targets": figures["targets"],
        "param_bytes": figures["param_bytes"],
        "programs": figures["programs"],
        "code": [
            code_figures(variant, image, schedules.backend.target.cpu)
            for variant, image, schedules in zip(artifact.variants, images, built, strict=True)
        ],
        "variants": [
            variant_memory(artifact, variant, schedules)
            for variant, schedules in zip(artifact.variants, built, strict=True)
        ],
    }
