import os
import threading
from pathlib import Path

import pytest

from edgec.backends.cache import Cache, cache_folder, write_atomically

SHARE = 3 * (32 + 1000)  # three entries of 1000 bytes, with their digests


def keys(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*/*"))


def put_at(cache: Cache, folder: Path, key: str, when: int) -> None:
    cache.put(key, bytes(1000))
    os.utime(folder / key[:2] / key, (when, when))


def test_what_was_put_is_got_and_nothing_else(tmp_path):
    cache = Cache(tmp_path / "new" / "kernels")
    assert cache.get("ab1") is None
    cache.put("ab1", b"code")
    assert cache.get("ab1") == b"code" and cache.get("ab2") is None


@pytest.mark.parametrize("damage", [b"", b"short", None])
def test_a_damaged_entry_is_a_miss_and_can_be_replaced(tmp_path, damage):
    cache = Cache(tmp_path)
    cache.put("ab1", b"code" * 100)
    path = tmp_path / "ab" / "ab1"
    path.write_bytes(path.read_bytes()[:-1] + b"?" if damage is None else damage)
    assert cache.get("ab1") is None
    cache.put("ab1", b"code")
    assert cache.get("ab1") == b"code"


def test_eviction_drops_the_least_recently_used_of_a_shard_down_to_its_share(tmp_path):
    cache = Cache(tmp_path, limit=256 * SHARE)
    for age in range(4):
        put_at(cache, tmp_path, f"ab{age}", 1000 + age)
    cache.get("ab0")
    cache.evict()
    assert keys(tmp_path) == ["ab0", "ab2", "ab3"]


def test_eviction_reads_only_shards_that_were_written(tmp_path, monkeypatch):
    others = Cache(tmp_path, limit=1 << 30)
    for number in range(4):
        put_at(others, tmp_path, f"cd{number}", 1000 + number)
    scanned = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: scanned.append(Path(path)) or scandir(path))
    cache = Cache(tmp_path, limit=256 * SHARE)
    cache.put("ab0", bytes(1000))
    cache.evict()
    cache.evict()
    assert scanned == [tmp_path / "ab", tmp_path]
    assert keys(tmp_path) == ["ab0", "cd0", "cd1", "cd2", "cd3"]
    # The next writer of that shard cuts it down, whoever filled it.
    put_at(cache, tmp_path, "cd4", 2000)
    cache.evict()
    assert keys(tmp_path) == ["ab0", "cd2", "cd3", "cd4"]


def test_what_was_used_last_stays_though_it_is_larger_than_a_share(tmp_path):
    cache = Cache(tmp_path, limit=256 * SHARE)
    put_at(cache, tmp_path, "ab0", 1000)
    cache.put("ab1", bytes(10 * SHARE))
    cache.evict()
    assert keys(tmp_path) == ["ab1"]


def test_what_a_killed_writer_left_goes_too(tmp_path):
    cache = Cache(tmp_path, limit=256 * SHARE)
    (tmp_path / "ab").mkdir()
    (tmp_path / "ab" / ".new-1234").write_bytes(bytes(SHARE))
    os.utime(tmp_path / "ab" / ".new-1234", (1000, 1000))
    cache.put("ab0", bytes(1000))
    cache.evict()
    assert keys(tmp_path) == ["ab0"]


def test_entries_of_releases_without_shards_go(tmp_path):
    cache = Cache(tmp_path)
    (tmp_path / "ab00").write_bytes(b"old")
    cache.put("ab00", b"code")
    cache.evict()
    assert os.listdir(tmp_path) == ["ab"] and cache.get("ab00") == b"code"


def test_what_another_process_deletes_meanwhile_is_no_error(tmp_path, monkeypatch):
    cache = Cache(tmp_path, limit=256 * SHARE)
    for number in range(5):
        put_at(cache, tmp_path, f"ab{number}", 1000 + number)
    unlink = os.unlink

    def unlink_twice(path: str) -> None:
        unlink(path)
        unlink(path)

    monkeypatch.setattr(os, "unlink", unlink_twice)
    cache.evict()
    assert keys(tmp_path) == ["ab2", "ab3", "ab4"]


def test_a_cache_that_cannot_be_written_misses(tmp_path):
    (tmp_path / "file").write_text("in the way")
    cache = Cache(tmp_path / "file" / "kernels")
    cache.put("ab1", b"code")
    cache.evict()
    assert cache.get("ab1") is None


def test_readers_never_see_half_a_file(tmp_path):
    path = tmp_path / "k"
    contents = {bytes([i]) * 100_000 for i in range(2)}
    write_atomically(path, bytes(100_000))
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            for content in contents:
                write_atomically(path, content)

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    seen = {path.read_bytes() for _ in range(300)}
    stop.set()
    for writer in writers:
        writer.join()
    assert seen <= contents
    assert os.listdir(tmp_path) == ["k"]


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("no space")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError):
        write_atomically(tmp_path / "k", b"code")
    assert os.listdir(tmp_path) == []


def test_the_environment_moves_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("EDGEC_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("EDGEC_CACHE")
    assert cache_folder().name == "edgec"
