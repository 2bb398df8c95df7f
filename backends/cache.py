"""The cache on disk of what compilers made: files by the hash of all that determines their bytes.

Safe for any number of processes: a file appears under its name complete or not at all, and its first bytes are the hash
of the rest, so that damage is a miss. A cache that cannot be written is a cache that misses.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import platformdirs

DEFAULT_LIMIT = 1 << 30  # bytes
_DIGEST = hashlib.sha256().digest_size


def cache_folder() -> Path:
    """$EDGEC_CACHE, or the user's cache folder of the platform."""
    return Path(os.environ.get("EDGEC_CACHE") or platformdirs.user_cache_dir("edgec"))


class Cache:
    """Bytes by key, up to `limit` bytes in all; what was not used for longest goes first."""

    def __init__(self, folder: Path, limit: int = DEFAULT_LIMIT):
        self._folder = folder
        self._limit = limit

    def get(self, key: str) -> bytes | None:
        path = self._folder / key
        try:
            data = path.read_bytes()
        except OSError:
            return None
        payload = data[_DIGEST:]
        if hashlib.sha256(payload).digest() != data[:_DIGEST]:
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # the time of last use is what eviction goes by
        return payload

    def put(self, key: str, payload: bytes) -> None:
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self._folder / key, hashlib.sha256(payload).digest() + payload)

    def evict(self) -> None:
        """Delete the least recently used entries while the cache is over its limit."""
        entries = sorted(self._entries(), key=lambda entry: entry[1].st_mtime_ns)
        excess = sum(status.st_size for _, status in entries) - self._limit
        for path, status in entries:
            if excess <= 0:
                return
            with contextlib.suppress(OSError):
                path.unlink()
            excess -= status.st_size

    def _entries(self) -> Iterator[tuple[Path, os.stat_result]]:
        try:
            paths = list(self._folder.iterdir())
        except OSError:
            return
        for path in paths:
            # Another process may have deleted it since.
            with contextlib.suppress(OSError):
                yield path, path.stat()


def write_atomically(path: Path, data: bytes) -> None:
    """Create or replace a file so that readers see either nothing or all of it. OSError if that fails."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
