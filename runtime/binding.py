"""`load` and `Model`: an artifact open for inference and training, numpy in and numpy out.

Thin over the C library (`csrc/edgec.h`), which runs without the GIL. Needs numpy and nothing else.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import functools
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np

from edgec.runtime import library as c
from edgec.runtime.dtypes import DTYPES, dtype_name, narrowed, numpy_dtype, widened
from edgec.runtime.errors import RuntimeFailure
from edgec.runtime.format import Slot, TensorKind
from edgec.runtime.layout import read_manifest
from edgec.runtime.library import check, library
from edgec.runtime.original import DAMAGE, StoredOriginal, decode_originals
from edgec.runtime.parts import PIECES, Parts, read_parts
from edgec.runtime.rows import padded
from edgec.runtime.session import CallProfile, ModelHandle, Session
from edgec.runtime.signature import Signature, TensorInfo, check_names, conform
from edgec.runtime.tables import Section

_HELD_STEPS = "held/steps"

__all__ = ["CallProfile", "Checkpoint", "Model", "Session", "Signature", "TensorInfo", "load"]


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint says of itself: where the training loop that saved it was, and which artifact it is for."""

    step: int
    seed: int
    fingerprint: bytes

    @staticmethod
    def of(path: str | os.PathLike[str]) -> Checkpoint:
        """Checked as well as possible without the artifact. E0506 if it is damaged, E0507 if it cannot be read."""
        info = c.CheckpointInfo()
        check(library().edgec_checkpoint_get(os.fsencode(path), ctypes.byref(info)), where=os.fspath(path))
        return Checkpoint(info.progress.step, info.progress.seed, bytes(info.fingerprint))


def load(
    path: str | os.PathLike[str],
    threads: int | None = None,
    *,
    target: str | None = None,
    libraries: Collection[str] = (),
) -> Model:
    """Open an artifact with the best variant that this machine can run, or the one of `target`.

    `threads` counts the caller's; None means one per CPU of this process. Results do not depend on it. `libraries`
    (`cublaslt`) may do products of matrices on a GPU instead of the artifact's kernels, where they are installed and
    faster; the first time that is measured, and remembered in the user's cache folder.
    RuntimeFailure: E0501 not an artifact, E0502 damaged, E0503 newer format, E0504 for another machine, E0507 cannot be
    read, E0609 no memory.
    """
    where = os.fspath(path)
    handle, refused, shortage = ctypes.c_void_p(), c.Location(), c.Shortage()
    name = target.encode() if target else None
    reports = {"refused": ctypes.pointer(refused), "shortage": ctypes.pointer(shortage)}
    options = c.Options(target=name, libraries=c.library_bits(libraries), **reports)
    status = library().edgec_model_open(os.fsencode(path), ctypes.byref(options), ctypes.byref(handle))
    check(status, where=where, refused=refused, shortage=shortage)
    model = Model(ModelHandle(handle), threads)
    if any(name.endswith(PIECES) for name in model.tensors):
        model.parts = read_parts(read_manifest(where))
    return model


@dataclass(frozen=True)
class _Weight:
    """A parameter, state or constant of an open model."""

    index: int
    info: TensorInfo
    kind: TensorKind
    trained: bool
    writable: bool


def _tensor_info(info: c.BindingInfo | c.TensorInfo) -> TensorInfo:
    return TensorInfo(info.name.decode(), tuple(info.shape[: info.rank]), numpy_dtype(DTYPES[info.dtype]))


def _stored(value: object, info: TensorInfo) -> np.ndarray:
    """`value` as a tensor's elements; of a bfloat16 also what `widened` gave. Failures as of `conform`."""
    if dtype_name(info.dtype) == "bf16" and isinstance(value, np.ndarray) and value.dtype == np.float32:
        try:
            value = narrowed(value)
        except ValueError as error:
            raise RuntimeFailure("E0602", f"`{info.name}`: {error}", hint="round them first") from error
    return conform(value, info)


def _signature(model: ctypes.c_void_p, index: int) -> Signature:
    program = c.ProgramInfo()
    check(library().edgec_program_get(model, index, ctypes.byref(program)))
    bindings = [c.BindingInfo() for _ in range(program.binding_count)]
    for number, binding in enumerate(bindings):
        check(library().edgec_binding_get(model, index, number, ctypes.byref(binding)))
    slots = []
    for binding in bindings:
        bounds = (binding.low, binding.high) if binding.high >= binding.low else None
        below, count = (
            bindings[number - 1].name.decode() if number else None for number in (binding.below, binding.count)
        )
        ignored = binding.ignored if binding.ignored != binding.low else None
        info = dataclasses.replace(
            _tensor_info(binding),
            bounds=bounds,
            ignored=ignored,
            below=below,
            count=count,
            count_axis=binding.count_axis,
        )
        slots.append((Slot(binding.slot), info))
    name = program.name.decode()
    return Signature(name, index, tuple(slots), program.arena_bytes, program.macs, bool(program.updates))


def _weight(model: ctypes.c_void_p, index: int) -> _Weight:
    info = c.TensorInfo()
    check(library().edgec_tensor_get(model, index, ctypes.byref(info)))
    return _Weight(index, _tensor_info(info), TensorKind(info.kind), bool(info.trained), bool(info.writable))


@contextlib.contextmanager
def _damage_refused() -> Iterator[None]:
    """Around what reads the section of originals."""
    try:
        yield
    except DAMAGE as error:
        raise RuntimeFailure("E0502", f"the originals of parameters are damaged: {error}") from error


class Model:
    """An open artifact: its parameters and states, and a session of its own. `load` makes it; `with` closes it early.

    `inputs` and `outputs` are those of the `infer` program (of the first one where there is none).
    """

    def __init__(self, handle: ModelHandle, threads: int | None):
        self._handle = handle
        info = c.ModelInfo()
        library().edgec_model_get(handle.pointer, ctypes.byref(info))
        self.target: str = info.target.decode()
        self.fingerprint: bytes = bytes(info.fingerprint[:16])
        self.param_bytes: int = info.param_bytes
        self.state_bytes: int = info.state_bytes
        self.arena_bytes: int = info.arena_bytes
        signatures = [_signature(handle.pointer, i) for i in range(info.program_count)]
        weights = [_weight(handle.pointer, i) for i in range(info.tensor_count)]
        self._programs = {signature.name: signature for signature in signatures}
        self._weights = {weight.info.name: weight for weight in weights}
        self._session = self.session(threads)
        self.parts: dict[str, Parts] = {}  # parameters of the source model that are held in pieces, by name

    # ---- What it is. ----

    @property
    def programs(self) -> tuple[str, ...]:
        return tuple(self._programs)

    def signature(self, program: str) -> Signature:
        """What a program takes and gives; RuntimeFailure E0606 if there is none of that name."""
        return self._session.signature(program)

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of all parameters, states and constants, as the artifact has them."""
        return tuple(self._weights)

    @property
    def _main(self) -> Signature:
        return self._programs.get("infer") or next(iter(self._programs.values()))

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        return self._main.inputs

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        return self._main.outputs

    # ---- Running. ----

    def session(self, threads: int | None = None) -> Session:
        """Another arena and threads on the same parameters, for running side by side."""
        return Session(self._handle, self._programs, threads)

    def run(self, feeds: Mapping[str, object], *, program: str = "infer") -> dict[str, np.ndarray]:
        """Outputs by name, as new arrays. See `Session.run` for the failures."""
        return self._session.run(program, feeds)[1]

    def step(self, feeds: Mapping[str, object], lr: float | None = None, **scalars: float) -> float:
        """One training step; the loss before the update. `lr` and others are the program's scalars.

        Fewer samples than the batch are filled up with such that do not count. A scalar with bounds (`classes`) that is
        not given takes its greatest value. With accumulation, gradients are held; the last step of a round updates.

        RuntimeFailure E0604 for a label out of range, E0605 for a loss and E0613 for gradients that are not finite:
        nothing was updated.
        """
        if lr is not None:
            scalars["lr"] = lr
        apply = self._apply_scalars(scalars)
        try:
            filled, _ = padded(self.signature("train"), {**feeds, **scalars})
            loss, outputs = self._session.run("train", filled)
        except RuntimeFailure as failure:
            if failure.code == "E0605" and (damaged := self.not_finite()) is not None:
                failure.message += f"; `{damaged}` is not either, since a gradient of an earlier step overflowed"
                failure.hint = "go back to a checkpoint, and compile with --guard grads, which refuses such steps"
            raise
        if outputs.get("due"):
            self._session.run("apply", apply)
        return float("nan") if loss is None else loss

    @property
    def held_steps(self) -> int:
        """Steps whose gradients are held and not yet applied; 0 without accumulation."""
        return int(self._read(_HELD_STEPS)) if "apply" in self._programs else 0

    def apply(self, lr: float, **scalars: float) -> None:
        """Update with the gradients that are held, before their round is full. RuntimeFailure E0613 as `step`."""
        self._session.run("apply", {**scalars, "lr": lr})

    def _apply_scalars(self, scalars: dict[str, float]) -> dict[str, float]:
        """What `apply` takes of the scalars of a step; without accumulation nothing."""
        if "apply" not in self._programs:
            return {}
        names = [info.name for info in self.signature("apply").scalars]
        taken = {name: scalars.pop(name) for name in names if name in scalars}
        check_names(taken, self.signature("apply").scalars, "program `apply`")
        return taken

    def eval_step(self, feeds: Mapping[str, object], **scalars: float) -> tuple[float, dict[str, np.ndarray]]:
        """(loss, outputs by name) of the `eval` program; nothing is updated. Fewer samples than the batch will do."""
        filled, rows = padded(self.signature("eval"), {**feeds, **scalars})
        loss, outputs = self._session.run("eval", filled)
        if rows is not None:
            batch = self.signature("eval").inputs[0].shape[0]
            outputs = {name: y[:rows] if y.shape[:1] == (batch,) else y for name, y in outputs.items()}
        return float("nan") if loss is None else loss, outputs

    def profile(self) -> AbstractContextManager[list[CallProfile]]:
        """`with model.profile() as calls: model.run(...)` fills `calls` with every kernel call and its time."""
        return self._session.profile()

    # ---- Parameters and states. ----

    def parameters(self) -> dict[str, np.ndarray]:
        """Copies of all parameters, by the names and in the shapes of the source model: of a torch module, what its
        `load_state_dict` takes. What training updates as it is now, the rest as it was, to the bit.

        What the artifact holds in pieces is put together; low-rank adapters are merged. A bfloat16, which numpy lacks,
        comes as the float32 of the same value. RuntimeFailure E0502 where the file is damaged.
        """
        pieces = {name for parts in self.parts.values() for name in parts.tensors}
        names = [name for name in self._of_kind(TensorKind.PARAM) if name not in pieces]
        values = {name: widened(self._whole(name)) for name in (*names, *self.parts)}
        with _damage_refused():
            return values | {original.name: widened(original.value(self._whole)) for original in self._originals}

    def parameter(self, name: str) -> np.ndarray:
        """A copy of one of `parameters()` that the artifact holds whole. RuntimeFailure E0601 for any other name."""
        if name not in self._of_kind(TensorKind.PARAM):
            raise RuntimeFailure("E0601", f"the artifact has no parameter `{name}`")
        return widened(self._read(name))

    @functools.cached_property
    def _originals(self) -> list[StoredOriginal]:
        data, size = ctypes.c_void_p(), ctypes.c_size_t()
        pointers = ctypes.byref(data), ctypes.byref(size)
        check(library().edgec_model_section(self._handle.pointer, Section.ORIGINALS, *pointers))
        with _damage_refused():
            return decode_originals(ctypes.string_at(data, size.value)) if size.value else []

    def states(self) -> dict[str, np.ndarray]:
        """Copies of optimizer states, running statistics and counters."""
        return {name: self._read(name) for name in self._of_kind(TensorKind.STATE)}

    @property
    def trained(self) -> tuple[str, ...]:
        """Names of the parameters that some program updates, in whole or in part."""
        source = {piece: name for name, parts in self.parts.items() for piece in parts.tensors}
        updated = [name for name in self._of_kind(TensorKind.PARAM) if self._weights[name].trained]
        return tuple(dict.fromkeys(source.get(name, name) for name in updated))

    def trained_elements(self, name: str) -> np.ndarray:
        """Which elements of parameter `name` some program updates: bool, in its shape."""
        parts = self.parts.get(name, Parts((name,)))
        return parts.joined(lambda piece: np.full(self._weights[piece].info.shape, self._weights[piece].trained))

    def adapters(self) -> dict[str, np.ndarray]:
        """Low-rank adapters by name, two for each weight `w`: `w/lora_A` and `w/lora_B`.

        The factor alpha / rank is in B, so the weight that they belong to is tuned by adding their product.
        """
        arrays = {}
        for parts in self.parts.values():
            if parts.adapter is not None:
                *names, scale = parts.adapter
                arrays |= {name: self._read(name) for name in sorted(names)}
                arrays[max(names)] = (arrays[max(names)] * scale).astype(arrays[max(names)].dtype)
        return arrays

    def not_finite(self) -> str | None:
        """The name of a trained parameter that holds a number which is not finite; None where all are."""
        for name in (name for name in self._of_kind(TensorKind.PARAM) if self._weights[name].trained):
            array = self._read(name)
            if not np.isfinite(array if array.dtype.kind == "f" else array.astype(np.float32)).all():
                return name
        return None

    def set_parameters(self, values: Mapping[str, object]) -> None:
        """Replace parameters and states by name; all are checked before any is replaced.

        RuntimeFailure: E0601 unknown name, E0602 dtype, E0603 shape, E0610 frozen in this artifact.
        """
        arrays = {}
        other_names = {original.name: original.tensor for original in self._originals if original.is_another_name}
        values = {other_names.get(name, name): value for name, value in values.items()}
        frozen = {original.name for original in self._originals}
        for name, value in self._pieces_of(values).items():
            if name not in self._weights and name not in frozen:
                raise RuntimeFailure("E0601", f"the artifact has no parameter or state `{name}`")
            weight = self._weights.get(name)
            if weight is None or not weight.writable:
                raise RuntimeFailure(
                    "E0610",
                    f"`{name}` is frozen in this artifact",
                    hint="compile with an update scheme that trains it, such as --update full",
                )
            arrays[name] = np.ascontiguousarray(_stored(value, weight.info), weight.info.dtype)
        for name, array in arrays.items():
            index = self._weights[name].index
            check(library().edgec_tensor_write(self._handle.pointer, index, array.ctypes.data, array.nbytes))

    def _pieces_of(self, values: Mapping[str, object]) -> dict[str, object]:
        """`values`, with those that are held in pieces cut; a frozen piece may be given if it does not change."""
        given: dict[str, object] = {}
        for name, value in values.items():
            parts = self.parts.get(name)
            if parts is None:
                given[name] = value
                continue
            current = parts.joined(self._read)
            array = conform(value, TensorInfo(name, current.shape, current.dtype))
            extents = {piece: self._weights[piece].info.shape[parts.axis] for piece in parts.pieces}
            for piece, part in parts.cut(array, extents).items():
                if self._weights[piece].writable or not np.array_equal(part, self._read(piece)):
                    given[piece] = part
        return given

    def _of_kind(self, kind: TensorKind) -> Iterator[str]:
        return (name for name, weight in self._weights.items() if weight.kind == kind)

    def _whole(self, name: str) -> np.ndarray:
        """A tensor, or a parameter of the source model that is held in pieces."""
        return self.parts[name].joined(self._read) if name in self.parts else self._read(name)

    def _read(self, name: str) -> np.ndarray:
        weight = self._weights[name]
        array = np.empty(weight.info.shape, weight.info.dtype)
        check(library().edgec_tensor_read(self._handle.pointer, weight.index, array.ctypes.data, array.nbytes))
        return array

    # ---- Checkpoints. ----

    def save_checkpoint(self, path: str | os.PathLike[str], *, step: int = 0, seed: int = 0) -> None:
        """Trained parameters and all states, in a form that other targets read too.

        `step` and `seed` are the caller's own and come back with `load_checkpoint`. E0505 if it cannot be written: the
        old file is whole then.
        """
        progress = c.Progress(step, seed)
        status = library().edgec_checkpoint_save(self._handle.pointer, os.fsencode(path), ctypes.byref(progress))
        check(status, where=os.fspath(path))

    def load_checkpoint(self, path: str | os.PathLike[str]) -> Checkpoint:
        """E0506 if it is damaged or of another graph, E0507 if it cannot be read; nothing is changed then."""
        progress = c.Progress()
        status = library().edgec_checkpoint_load(self._handle.pointer, os.fsencode(path), ctypes.byref(progress))
        check(status, where=os.fspath(path))
        return Checkpoint(progress.step, progress.seed, self.fingerprint)

    # ---- End. ----

    def close(self) -> None:
        """Close it and all its sessions; nothing of it can be used afterwards."""
        self._handle.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
