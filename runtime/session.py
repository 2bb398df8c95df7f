"""A session over the C library: an arena and threads, running programs of one model with numpy in and out."""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from edgec.runtime.errors import RuntimeFailure
from edgec.runtime.format import Slot
from edgec.runtime.library import Failure, ProfileCallback, Status, check, library
from edgec.runtime.signature import Signature, TensorInfo, check_names, conform, cut_to_counts


@dataclass(frozen=True)
class _Views:
    """Arrays over an arena: what a program takes, what it gives, and its loss; their addresses never change."""

    filled: tuple[tuple[TensorInfo, np.ndarray], ...]
    outputs: tuple[tuple[TensorInfo, np.ndarray], ...]
    loss: np.ndarray | None


@dataclass(frozen=True)
class CallProfile:
    """One call of a run: nanoseconds since the program began, duration, multiply-accumulates."""

    program: str
    kernel: str
    label: str
    start_ns: int
    ns: int
    macs: int


class ModelHandle:
    """A model of the C library. It is closed when nobody refers to it any more, sessions included, or by `close`."""

    def __init__(self, pointer: ctypes.c_void_p):
        self._pointer = pointer
        self._sessions: weakref.WeakSet[Session] = weakref.WeakSet()
        self._finalizer = weakref.finalize(self, library().edgec_model_close, pointer)
        self._finalizer.atexit = False  # see `Session`

    @property
    def pointer(self) -> ctypes.c_void_p:
        if not self._finalizer.alive:
            raise ValueError("the model is closed")
        return self._pointer

    def add(self, session: Session) -> None:
        self._sessions.add(session)

    def close(self) -> None:
        """Closes all its sessions first."""
        for session in list(self._sessions):
            session.close()
        self._finalizer()


def _close_session(pointer: ctypes.c_void_p, model: ModelHandle, process: int) -> None:
    """`model` is an argument so that it lives until here.

    A fork has the session but not its threads, and must not wait for them; running there works, on one thread.
    """
    if os.getpid() == process:
        library().edgec_session_close(pointer)


class Session:
    """One arena and `threads` threads (None: one per CPU of this process). If Python threads share it, runs queue up.

    RuntimeFailure E0609 when the system has no memory or threads for it.
    """

    def __init__(self, model: ModelHandle, programs: Mapping[str, Signature], threads: int | None):
        if threads is not None and threads < 1:
            raise ValueError(f"threads must be at least 1, not {threads}")
        self._programs = programs
        self._lock = threading.Lock()
        self._handle = ctypes.c_void_p()
        check(library().edgec_session_open(model.pointer, threads or 0, ctypes.byref(self._handle)))
        self._finalizer = weakref.finalize(self, _close_session, self._handle, model, os.getpid())
        # What is open when the process ends stays open: other libraries that share a GPU may have ended before.
        self._finalizer.atexit = False
        self._views: dict[str, _Views] = {}
        model.add(self)

    def close(self) -> None:
        """Frees the arena and the threads; later calls of `close` do nothing."""
        with self._lock:
            self._views.clear()
            self._finalizer()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, program: str, feeds: Mapping[str, object]) -> tuple[float | None, dict[str, np.ndarray]]:
        """(loss or None, outputs by name) of one run; `feeds` holds every input and scalar by name.

        A scalar with bounds that is not given takes its greatest value: all classes of a new head are live.

        RuntimeFailure: E0601 names, E0602 dtype, E0603 shape, E0604 label out of range, E0605 loss not finite, E0606 no
        such program. Parameters and states are as before after each of them.
        """
        signature = self.signature(program)
        feeds = {**signature.greatest, **feeds}
        check_names(feeds, (*signature.inputs, *signature.scalars), f"program `{program}`")
        with self._lock:
            self._require_open()
            views = self._arena_views(signature)
            arrays = [conform(feeds[info.name], info) for info, _ in views.filled]
            for (_, view), array in zip(views.filled, arrays, strict=True):
                view[...] = array
            self._check_run(signature, library().edgec_run(self._handle, signature.index))
            loss = None if views.loss is None else views.loss.item()
            outputs = cut_to_counts(
                {info.name: view for info, view in views.outputs}, (info for info, _ in views.outputs)
            )
            return loss, {name: array.copy() for name, array in outputs.items()}

    @contextlib.contextmanager
    def profile(self) -> Iterator[list[CallProfile]]:
        """Inside `with`, every call of every run is appended to the list that it gives, in the order of execution."""
        calls: list[CallProfile] = []
        names = {signature.index: name for name, signature in self._programs.items()}

        def record(_: object, pointer: object) -> None:
            event = pointer.contents
            calls.append(
                CallProfile(
                    names[event.program],
                    event.kernel.decode(),
                    event.label.decode(),
                    event.start_ns,
                    event.ns,
                    event.macs,
                )
            )

        callback = ProfileCallback(record)
        with self._lock:
            self._require_open()
            library().edgec_session_profile(self._handle, callback, None)
        try:
            yield calls
        finally:
            with self._lock:
                if self._finalizer.alive:
                    library().edgec_session_profile(self._handle, ProfileCallback(), None)

    def signature(self, program: str) -> Signature:
        """What a program takes and gives; E0606 if there is none of that name."""
        if program not in self._programs:
            raise RuntimeFailure(
                "E0606",
                f"the artifact has no program `{program}`, only {', '.join(f'`{name}`' for name in self._programs)}",
                hint="`edgec compile --train` adds `train` and `eval`",
            )
        return self._programs[program]

    def _require_open(self) -> None:
        if not self._finalizer.alive:
            raise ValueError("the session is closed")

    def _arena_views(self, signature: Signature) -> _Views:
        if signature.name not in self._views:
            views = []
            for number, (slot, info) in enumerate(signature.slots):
                address = ctypes.c_void_p()
                check(library().edgec_binding_data(self._handle, signature.index, number, ctypes.byref(address)))
                views.append((slot, info, _view(address.value, info)))
            self._views[signature.name] = _Views(
                tuple((info, view) for slot, info, view in views if slot in (Slot.INPUT, Slot.SCALAR)),
                tuple((info, view) for slot, info, view in views if slot == Slot.OUTPUT),
                next((view.reshape(()) for slot, _, view in views if slot == Slot.LOSS), None),
            )
        return self._views[signature.name]

    def _check_run(self, signature: Signature, status: int) -> None:
        if status == Status.LABEL_OUT_OF_RANGE:
            failure = Failure()
            library().edgec_failure_get(self._handle, ctypes.byref(failure))
            info = signature.slots[failure.binding][1]
            place = [int(i) for i in np.unravel_index(failure.position, info.shape)] if info.shape else ""
            low, high = info.bounds
            wrong = f"`{info.name}`{place} is {failure.value}"
            if low <= failure.value <= high:
                raise RuntimeFailure("E0604", f"{wrong}: it must be less than `{info.below}`, the live classes")
            raise RuntimeFailure("E0604", f"{wrong}, outside {low} to {high}")
        check(status)


def _view(address: int | None, info: TensorInfo) -> np.ndarray:
    size = int(np.prod(info.shape, dtype=np.int64)) * info.dtype.itemsize
    memory = (ctypes.c_uint8 * size).from_address(address) if size else bytearray()
    return np.frombuffer(memory, info.dtype).reshape(info.shape)
