"""Having the C reader check an artifact, for every machine in it: what a compiler does with what it wrote."""

from __future__ import annotations

import ctypes
import mmap
import os

import numpy as np

from edgec.runtime.library import Location, check, library


def check_artifact(source: str | os.PathLike[str] | bytes) -> None:
    """RuntimeFailure E0501 to E0504 where no machine could run it; E0502 says which record is wrong.

    A file is read once and not held in memory.
    """
    where = None if isinstance(source, bytes) else os.fspath(source)
    size = len(source) if isinstance(source, bytes) else os.stat(source).st_size
    with _mapped(source, size) as memory:
        view, refused = np.frombuffer(memory, np.uint8), Location()
        status = library().edgec_artifact_check(view.ctypes.data, size, ctypes.byref(refused))
        del view  # or the mapping could not be closed
        check(status, where=where, refused=refused)


def _mapped(source: str | os.PathLike[str] | bytes, size: int) -> mmap.mmap:
    """Memory that begins on a page, as artifacts must: a file itself, however large; a copy of bytes."""
    if isinstance(source, bytes) or not size:
        memory = mmap.mmap(-1, max(size, 1))
        memory.write(source if isinstance(source, bytes) else b"")
        return memory
    with open(source, "rb") as file:
        return mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
