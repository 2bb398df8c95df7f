"""The cache on disk of what compilers made: files by the hash of all that determines their bytes.

Safe for any number of processes: a file appears under its name complete or not at all, and its first bytes are the hash
of the rest, so that damage is a miss. A cache that cannot be written is a cache that misses.

Entries lie in 256 shards, folders named by the first two hex digits of the hash. Each has its share of the limit, and
only those that were written are looked over: a full cache has more than 100,000 files, a shard some hundreds.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

import platformdirs

DEFAULT_LIMIT = 1 << 30  # bytes
_SHARDS = 256
_DIGEST = hashlib.sha256().digest_size


def cache_folder() -> Path:
    """$EDGEC_CACHE, or the user's cache folder of the platform."""
    return Path(os.environ.get("EDGEC_CACHE") or platformdirs.user_cache_dir("edgec"))


class Cache:
    """Bytes by key, a hash in hex digits; of about `limit` bytes in all. What was not used for longest goes first."""

    def __init__(self, folder: Path, limit: int = DEFAULT_LIMIT):
        self._folder = folder
        self._share = limit // _SHARDS
        self._written: set[Path] = set()

    def get(self, key: str) -> bytes | None:
        path = self._path(key)
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
        path = self._path(key)
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, hashlib.sha256(payload).digest() + payload)
            self._written.add(path.parent)

    def evict(self) -> None:
        """Delete the least recently used entries of shards that were written, while a shard is over its share. What was
        used last stays, be it larger than that.
        """
        for shard in self._written:
            entries = sorted(_files(shard), key=lambda entry: entry[1].st_mtime_ns)
            excess = sum(status.st_size for _, status in entries) - self._share
            for path, status in entries[:-1]:
                if excess <= 0:
                    break
                _delete(path)
                excess -= status.st_size
        if self._written:
            # Files beside the shards are of releases that had none: their entries are never asked for again.
            for path, _ in _files(self._folder):
                _delete(path)
        self._written.clear()

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / key


def _files(folder: Path) -> list[tuple[str, os.stat_result]]:
    """Path and status of every file in a folder; other processes may delete some meanwhile."""
    found = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                if not entry.is_dir(follow_symlinks=False):
                    found.append((entry.path, entry.stat(follow_symlinks=False)))
    return found


def _delete(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


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
