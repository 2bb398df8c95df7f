"""Tests compile the same on every machine, whatever its developer tuned, and find the kernels of the last run."""

import os
import subprocess
import sys
from pathlib import Path

from edgec.backends.tvm.tuning.choice import Record
from edgec.backends.tvm.tuning.database import user_path, write_records
from edgec.tools.testing.own_cache import make_cache

_CASES = """
import os, subprocess, sys
from pathlib import Path
from edgec.backends.cache import cache_folder
from edgec.backends.tvm.tuning.database import find_tuning, shipped_records

def test_here():
    assert find_tuning().records == shipped_records()

def test_in_another_process():
    code = "from edgec.backends.tvm.tuning.database import *; assert find_tuning().records == shipped_records()"
    subprocess.run([sys.executable, "-c", code], check=True)

def test_kernels_are_kept():
    (cache_folder() / "kernels" / "kept").write_text("")
    (cache_folder() / "journal").write_text("")
"""


def test_a_tuned_database_of_the_developer_is_not_seen(tmp_path: Path, monkeypatch):
    cases, cache = tmp_path / "cases", tmp_path / "cache"
    cases.mkdir()
    (cases / "test_cases.py").write_text(_CASES)
    monkeypatch.setenv("EDGEC_CACHE", str(cache))
    write_records(user_path(), {"product": Record(None, 1.5)}, "")
    command = [sys.executable, "-m", "pytest", "-p", "edgec.tools.testing.own_cache", "-p", "no:cacheprovider", "-q"]
    done = subprocess.run(command, cwd=cases, env=os.environ, capture_output=True, text=True)
    assert "3 passed" in done.stdout, done.stdout
    assert sorted(path.name for path in cache.iterdir()) == ["kernels", "programs", "run", user_path().name]
    assert (cache / "kernels" / "kept").exists()


def test_this_run_uses_it():
    assert (Path(os.environ["EDGEC_CACHE"]) / "kernels").is_symlink()


def test_a_cache_that_cannot_be_written_is_none(tmp_path: Path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EDGEC_CACHE", str(tmp_path / "file"))
    folder = make_cache(tmp_path / "own")
    assert not folder.exists() or not list(folder.iterdir())
