"""Having the C reader check an artifact, for every machine in it: what a compiler does with what it wrote."""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path

from edgec.runtime.library import Location, check, library


def check_artifact(source: str | os.PathLike[str] | bytes) -> None:
    """RuntimeFailure E0501 to E0504 where no machine could run it; E0502 says which record is wrong."""
    where = None if isinstance(source, bytes) else os.fspath(source)
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    memory = mmap.mmap(-1, max(len(data), 1))  # begins on a page, as artifacts in memory must
    memory.write(data)
    view, refused = (ctypes.c_char * len(memory)).from_buffer(memory), Location()
    try:
        status = library().edgec_artifact_check(ctypes.addressof(view), len(data), ctypes.byref(refused))
        check(status, where=where, refused=refused)
    finally:
        del view
        memory.close()
