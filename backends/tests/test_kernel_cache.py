import os
import threading

import pytest

from edgec.backends.cache import Cache, cache_folder, write_atomically


def test_what_was_put_is_got_and_nothing_else(tmp_path):
    cache = Cache(tmp_path / "new" / "kernels")
    assert cache.get("k") is None
    cache.put("k", b"code")
    assert cache.get("k") == b"code" and cache.get("other") is None


@pytest.mark.parametrize("damage", [b"", b"short", None])
def test_a_damaged_entry_is_a_miss_and_can_be_replaced(tmp_path, damage):
    cache = Cache(tmp_path)
    cache.put("k", b"code" * 100)
    whole = (tmp_path / "k").read_bytes()
    (tmp_path / "k").write_bytes(whole[:-1] + b"?" if damage is None else damage)
    assert cache.get("k") is None
    cache.put("k", b"code")
    assert cache.get("k") == b"code"


def test_eviction_drops_the_least_recently_used_down_to_the_limit(tmp_path):
    cache = Cache(tmp_path, limit=3 * (32 + 1000))
    for age, key in enumerate("abcd"):
        cache.put(key, bytes(1000))
        os.utime(tmp_path / key, (1000 + age, 1000 + age))
    cache.get("a")
    cache.evict()
    assert sorted(os.listdir(tmp_path)) == ["a", "c", "d"]


def test_a_cache_that_cannot_be_written_misses(tmp_path):
    (tmp_path / "file").write_text("in the way")
    cache = Cache(tmp_path / "file" / "kernels")
    cache.put("k", b"code")
    cache.evict()
    assert cache.get("k") is None


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
