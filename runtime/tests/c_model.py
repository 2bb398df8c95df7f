"""Opening bytes with the C library directly, and the status that comes back."""

from __future__ import annotations

import ctypes
import mmap

from edgec.runtime.library import Location, Options, Status, library
from edgec.runtime.tables import Section


def aligned(data: bytes) -> mmap.mmap:
    """The bytes at the start of a page; the caller keeps it alive."""
    memory = mmap.mmap(-1, max(len(data), 1))
    memory.write(data)
    return memory


def open_bytes(data: bytes, **options: object) -> tuple[Status, Location]:
    """Opens and closes; the status, and where the file was refused."""
    memory, model, refused = aligned(data), ctypes.c_void_p(), Location(0, 0)
    view = (ctypes.c_char * len(memory)).from_buffer(memory)
    chosen = Options(refused=ctypes.pointer(refused), **options)
    address = ctypes.addressof(view)
    status = library().edgec_model_open_memory(address, len(data), ctypes.byref(chosen), ctypes.byref(model))
    if status == Status.OK:
        library().edgec_model_close(model)
    return Status(status), refused


def refused_at(data: bytes) -> Section:
    """The section that holds the lie."""
    status, refused = open_bytes(data)
    assert status == Status.MALFORMED
    return Section(refused.section)
