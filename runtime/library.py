"""ctypes declarations of `csrc/edgec.h`, in its order, and its status codes as failures."""

from __future__ import annotations

import ctypes
import enum
import functools
from collections.abc import Collection
from ctypes import POINTER, Structure, c_char_p, c_int, c_int64, c_size_t, c_uint8, c_uint32, c_uint64, c_void_p
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from edgec.runtime.abi import MAX_RANK
from edgec.runtime.errors import RuntimeFailure
from edgec.runtime.tables import Section


class Status(enum.IntEnum):
    OK = 0x00
    NOT_AN_ARTIFACT = 0x10
    NEWER_FORMAT = 0x11
    TRUNCATED = 0x12
    DAMAGED = 0x13
    MALFORMED = 0x14
    WRONG_MACHINE = 0x20
    MISSING_FEATURE = 0x21
    NO_SUCH_TARGET = 0x22
    NO_KERNELS = 0x23
    BAD_IMAGE = 0x24
    NO_DRIVER = 0x25
    NO_DEVICE = 0x26
    SMALL_DEVICE = 0x27
    OUT_OF_MEMORY = 0x30
    CANNOT_READ = 0x31
    CANNOT_WRITE = 0x32
    CANNOT_MAP = 0x33
    NO_THREADS = 0x34
    DEVICE_MEMORY = 0x35
    DEVICE_FAILED = 0x36
    INVALID_ARGUMENT = 0x40
    NO_SUCH_PROGRAM = 0x41
    NO_SUCH_TENSOR = 0x42
    WRONG_SIZE = 0x43
    READ_ONLY = 0x44
    MISALIGNED = 0x45
    LOSS_NOT_FINITE = 0x50
    LABEL_OUT_OF_RANGE = 0x51
    GRADIENT_NOT_FINITE = 0x52
    NOT_A_CHECKPOINT = 0x60
    CHECKPOINT_NEWER = 0x61
    CHECKPOINT_DAMAGED = 0x62
    CHECKPOINT_MALFORMED = 0x63
    CHECKPOINT_MISMATCH = 0x64


_CODES = {
    Status.NOT_AN_ARTIFACT: "E0501",
    Status.NEWER_FORMAT: "E0503",
    Status.TRUNCATED: "E0502",
    Status.DAMAGED: "E0502",
    Status.MALFORMED: "E0502",
    Status.WRONG_MACHINE: "E0504",
    Status.MISSING_FEATURE: "E0504",
    Status.NO_SUCH_TARGET: "E0504",
    Status.NO_KERNELS: "E0504",
    Status.BAD_IMAGE: "E0504",
    Status.NO_DRIVER: "E0504",
    Status.NO_DEVICE: "E0504",
    Status.SMALL_DEVICE: "E0504",
    Status.OUT_OF_MEMORY: "E0609",
    Status.CANNOT_READ: "E0507",
    Status.CANNOT_WRITE: "E0505",
    Status.CANNOT_MAP: "E0609",
    Status.NO_THREADS: "E0609",
    Status.DEVICE_MEMORY: "E0609",
    Status.DEVICE_FAILED: "E0608",
    Status.NO_SUCH_PROGRAM: "E0606",
    Status.NO_SUCH_TENSOR: "E0601",
    Status.WRONG_SIZE: "E0603",
    Status.READ_ONLY: "E0610",
    Status.LOSS_NOT_FINITE: "E0605",
    Status.LABEL_OUT_OF_RANGE: "E0604",
    Status.GRADIENT_NOT_FINITE: "E0613",
    Status.NOT_A_CHECKPOINT: "E0506",
    Status.CHECKPOINT_NEWER: "E0506",
    Status.CHECKPOINT_DAMAGED: "E0506",
    Status.CHECKPOINT_MALFORMED: "E0506",
    Status.CHECKPOINT_MISMATCH: "E0506",
}

_HINTS = {
    Status.NEWER_FORMAT: "install a newer edgec, or compile the model again with this one",
    Status.TRUNCATED: "copy or compile the file again",
    Status.DAMAGED: "copy or compile the file again",
    Status.WRONG_MACHINE: "compile the model with the --target of this machine",
    Status.MISSING_FEATURE: "compile the model for an older processor, or on this machine with --target x86",
    Status.NO_SUCH_TARGET: "`edgec inspect` lists the targets in an artifact",
    Status.NO_KERNELS: "the variant is for static linking; compile the model with the --target of this machine",
    Status.NO_DRIVER: "install the GPU's driver (libcuda.so.1, libOpenCL.so.1), or add a processor's --target",
    Status.NO_DEVICE: "compile the model with the --target of this GPU; `edgec inspect` lists those in the artifact",
    Status.SMALL_DEVICE: "compile the model for a processor too: --target mobile-gpu,arm-cpu",
    Status.DEVICE_MEMORY: "`edgec memory` shows what the artifact needs; close what else uses the GPU",
    Status.OUT_OF_MEMORY: "`edgec memory` shows what the artifact needs",
    Status.CHECKPOINT_MISMATCH: "use the artifact that wrote it, or one with the same graph, scheme and optimizer",
}


LIBRARIES = {"cublaslt": 1}  # edgec_library, by name


class Allocator(Structure):
    _fields_ = [("allocate", c_void_p), ("release", c_void_p), ("context", c_void_p)]


class Location(Structure):
    _fields_ = [("section", c_uint32), ("record", c_uint32)]


class Shortage(Structure):
    _fields_ = [("needed", c_uint64), ("available", c_uint64)]


class Options(Structure):
    _fields_ = [
        ("target", c_char_p),
        ("allocator", Allocator),
        ("kernels", c_void_p),
        ("kernel_count", c_uint32),
        ("refused", POINTER(Location)),
        ("shortage", POINTER(Shortage)),
        ("cache", c_char_p),
        ("libraries", c_uint32),
    ]


def library_bits(names: Collection[str]) -> int:
    """`Options.libraries`; ValueError for a name that is not of LIBRARIES."""
    if unknown := sorted(set(names) - set(LIBRARIES)):
        raise ValueError(f"no library `{unknown[0]}`; there is {', '.join(LIBRARIES)}")
    return sum(LIBRARIES[name] for name in set(names))


class ModelInfo(Structure):
    _fields_ = [
        ("target", c_char_p),
        ("fingerprint", POINTER(c_uint8)),
        ("param_bytes", c_uint64),
        ("state_bytes", c_uint64),
        ("arena_bytes", c_uint64),
        ("program_count", c_uint32),
        ("tensor_count", c_uint32),
    ]


class ProgramInfo(Structure):
    _fields_ = [
        ("name", c_char_p),
        ("arena_bytes", c_uint64),
        ("macs", c_uint64),
        ("call_count", c_uint32),
        ("binding_count", c_uint32),
        ("updates", c_uint32),
    ]


class BindingInfo(Structure):
    _fields_ = [
        ("name", c_char_p),
        ("slot", c_int),
        ("dtype", c_int),
        ("rank", c_uint32),
        ("shape", c_uint32 * MAX_RANK),
        ("bytes", c_uint64),
        ("low", c_int64),
        ("high", c_int64),
        ("ignored", c_int64),
        ("below", c_uint32),
        ("count", c_uint32),
        ("count_axis", c_uint32),
    ]


class Failure(Structure):
    _fields_ = [("binding", c_uint32), ("position", c_uint64), ("value", c_int64)]


class ProfileEvent(Structure):
    _fields_ = [
        ("program", c_uint32),
        ("call", c_uint32),
        ("kernel", c_char_p),
        ("label", c_char_p),
        ("start_ns", c_uint64),
        ("ns", c_uint64),
        ("macs", c_uint64),
        ("tasks", c_uint32),
    ]


class TensorInfo(Structure):
    _fields_ = [
        ("name", c_char_p),
        ("kind", c_int),
        ("dtype", c_int),
        ("rank", c_uint32),
        ("shape", c_uint32 * MAX_RANK),
        ("bytes", c_uint64),
        ("trained", c_uint32),
        ("writable", c_uint32),
    ]


class Progress(Structure):
    _fields_ = [("step", c_uint64), ("seed", c_uint64)]


class CheckpointInfo(Structure):
    _fields_ = [
        ("fingerprint", c_uint8 * 16),
        ("progress", Progress),
        ("bytes", c_uint64),
        ("tensor_count", c_uint32),
    ]


ProfileCallback = ctypes.CFUNCTYPE(None, c_void_p, POINTER(ProfileEvent))

# Functions that return a status, with their arguments.
_STATUS_FUNCTIONS = {
    "edgec_model_open": (c_char_p, POINTER(Options), POINTER(c_void_p)),
    "edgec_model_open_memory": (c_void_p, c_size_t, POINTER(Options), POINTER(c_void_p)),
    "edgec_artifact_check": (c_void_p, c_size_t, POINTER(Location)),
    "edgec_model_section": (c_void_p, c_uint32, POINTER(c_void_p), POINTER(c_size_t)),
    "edgec_program_get": (c_void_p, c_uint32, POINTER(ProgramInfo)),
    "edgec_program_find": (c_void_p, c_char_p, POINTER(c_uint32)),
    "edgec_binding_get": (c_void_p, c_uint32, c_uint32, POINTER(BindingInfo)),
    "edgec_binding_find": (c_void_p, c_uint32, c_char_p, POINTER(c_uint32)),
    "edgec_session_open": (c_void_p, c_uint32, POINTER(c_void_p)),
    "edgec_binding_data": (c_void_p, c_uint32, c_uint32, POINTER(c_void_p)),
    "edgec_input": (c_void_p, c_uint32, c_char_p, c_void_p, c_size_t),
    "edgec_output": (c_void_p, c_uint32, c_char_p, c_void_p, c_size_t),
    "edgec_run": (c_void_p, c_uint32),
    "edgec_tensor_get": (c_void_p, c_uint32, POINTER(TensorInfo)),
    "edgec_tensor_find": (c_void_p, c_char_p, POINTER(c_uint32)),
    "edgec_tensor_read": (c_void_p, c_uint32, c_void_p, c_size_t),
    "edgec_tensor_write": (c_void_p, c_uint32, c_void_p, c_size_t),
    "edgec_checkpoint_save": (c_void_p, c_char_p, POINTER(Progress)),
    "edgec_checkpoint_load": (c_void_p, c_char_p, POINTER(Progress)),
    "edgec_checkpoint_get": (c_char_p, POINTER(CheckpointInfo)),
}
_VOID_FUNCTIONS = {
    "edgec_model_close": (c_void_p,),
    "edgec_model_get": (c_void_p, POINTER(ModelInfo)),
    "edgec_session_close": (c_void_p,),
    "edgec_failure_get": (c_void_p, POINTER(Failure)),
    "edgec_session_profile": (c_void_p, ProfileCallback, c_void_p),
}


def library_path() -> Path:
    """Where the shared library was built; ImportError if it was not."""
    folder = Path(__file__).parent
    for suffix in EXTENSION_SUFFIXES:
        if (folder / f"_edgec{suffix}").exists():
            return folder / f"_edgec{suffix}"
    raise ImportError("edgec's runtime library is not built: install the package, or run `make lib` in its repository")


@functools.cache
def library() -> ctypes.CDLL:
    """The C library with its functions declared. Calls release the GIL."""
    loaded = ctypes.CDLL(str(library_path()))
    for names, result in ((_STATUS_FUNCTIONS, c_int), (_VOID_FUNCTIONS, None)):
        for name, arguments in names.items():
            function = getattr(loaded, name)
            function.argtypes, function.restype = arguments, result
    loaded.edgec_status_text.argtypes, loaded.edgec_status_text.restype = (c_int,), c_char_p
    return loaded


def check(
    status: int, *, where: str | None = None, refused: Location | None = None, shortage: Shortage | None = None
) -> None:
    """Raise what a status says, unless it is OK. A status that only our own mistake causes is a RuntimeError."""
    if status == Status.OK:
        return
    text = library().edgec_status_text(status).decode()
    if status not in _CODES:
        raise RuntimeError(f"edgec's runtime: {text} (status {status:#x})")
    if refused is not None and status in (Status.DAMAGED, Status.MALFORMED):
        known = refused.section in set(Section)
        text += f" (section {Section(refused.section).name if known else refused.section}"
        text += ")" if refused.record == 0xFFFFFFFF else f", record {refused.record})"
    if shortage is not None and status == Status.DEVICE_MEMORY:
        text += f" ({shortage.needed} bytes are needed, {shortage.available} are free)"
    raise RuntimeFailure(_CODES[Status(status)], text, where=where, hint=_HINTS.get(Status(status)))
