"""Arrays by name, from and to .npz files."""

from __future__ import annotations

import contextlib
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from edgec.graph.errors import UserError

_NPZ_HINT = "numpy.savez(path, x=x, labels=labels) writes one"
# What zipfile and numpy raise on files that are none of theirs.
_UNREADABLE = (ValueError, EOFError, RuntimeError, NotImplementedError, SyntaxError, zipfile.BadZipFile, zlib.error)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a .npz file. UserError E0507. Pickled objects are refused: they would run code.

    Sizes are checked against the archive before anything is allocated for what a header claims.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check_sizes(archive, path)
            return {info.filename.removesuffix(".npy"): _read_array(archive, info) for info in archive.infolist()}
    except OSError as error:
        raise UserError("E0507", f"cannot read: {error.strerror or error}", where=str(path)) from error
    except _UNREADABLE as error:
        raise UserError("E0507", "not a .npz file of arrays", where=str(path), hint=_NPZ_HINT) from error


def _check_sizes(archive: zipfile.ZipFile, path: Path) -> None:
    """UserError E0507 unless each array is as large as its member, and all together fit this machine's memory."""
    for info in archive.infolist():
        with archive.open(info) as file:
            shape, _, dtype = _read_header(file)
            if dtype.hasobject:
                message, hint = (
                    f"`{info.filename}` holds Python objects, not numbers",
                    "give the arrays a numeric dtype",
                )
                raise UserError("E0507", message, where=str(path), hint=hint)
            count = 1
            for extent in shape:
                count *= extent
            if file.tell() + count * dtype.itemsize != info.file_size:
                raise UserError("E0507", f"`{info.filename}` is not as large as it says", where=str(path))
    total = sum(info.file_size for info in archive.infolist())
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if total > memory:
        message = f"the arrays take {total / 2**30:.1f} GB, this machine has {memory / 2**30:.1f} GB"
        raise UserError("E0507", message, where=str(path))


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = npy.read_magic(file)
    return npy.read_array_header_1_0(file) if version == (1, 0) else npy.read_array_header_2_0(file)


def _read_array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(info) as file:
        return npy.read_array(file, allow_pickle=False)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a .npz file under exactly this name. UserError E0505; what stood there before stays then."""
    with whole_file(path) as file:
        np.savez(file, **arrays)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write, which takes its name once it is complete. UserError E0505.

    A device, /dev/stdout for one, is written as it is: it must not be replaced by a file.
    """
    in_place = path.exists() and not path.is_file()
    temporary = path if in_place else path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            yield file
        if not in_place:
            os.replace(temporary, path)
    except OSError as error:
        raise UserError("E0505", f"cannot write: {error.strerror or error}", where=str(path)) from error
    finally:
        if not in_place:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
