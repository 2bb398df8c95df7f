"""pytest plugin: tests have a cache folder of their own, in which what is kept by the hash of all that decides it lies
where it always does.

So kernels are compiled once for all runs, and nothing that a developer measured, a tuned database or a journal of a
search, changes what a test compiles.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from edgec.backends.cache import cache_folder

# Of kernels, of runner binaries, and of programs as an OpenCL driver compiled them.
_BY_HASH = ("kernels", "run", "programs")


def make_cache(folder: Path) -> Path:
    """`folder` as a cache that shares with the present one what is the same for all."""
    for name in _BY_HASH:
        shared = cache_folder().absolute() / name
        # A cache that cannot be written is a cache that misses.
        with contextlib.suppress(OSError):
            shared.mkdir(parents=True, exist_ok=True)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to(shared)
    return folder


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    folder = make_cache(Path(tempfile.mkdtemp(prefix="edgec-tests-")))
    before = os.environ.get("EDGEC_CACHE")
    os.environ["EDGEC_CACHE"] = str(folder)

    def restore() -> None:
        if before is None:
            del os.environ["EDGEC_CACHE"]
        else:
            os.environ["EDGEC_CACHE"] = before
        shutil.rmtree(folder, ignore_errors=True)  # links, not what they point to

    config.add_cleanup(restore)
