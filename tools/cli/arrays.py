"""Arrays by name, from and to .npz files."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edgec.graph.errors import UserError


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a .npz file. UserError E0507. Pickled objects are refused: they would run code."""
    try:
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            message = "a single array does not say which input it is for"
            raise UserError("E0507", message, where=str(path), hint="numpy.savez(path, x=x)")
        with loaded as file:
            return {name: file[name] for name in file.files}
    except OSError as error:
        raise UserError("E0507", f"cannot read: {error.strerror or error}", where=str(path)) from error
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError("E0507", "not a .npz file of arrays", where=str(path)) from error


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a .npz file under exactly this name. UserError E0505."""
    try:
        with path.open("wb") as file:
            np.savez(file, **arrays)
    except OSError as error:
        raise UserError("E0505", f"cannot write: {error.strerror}", where=str(path)) from error
