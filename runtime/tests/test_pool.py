"""The pool by itself: under as many jobs as it takes to see its rare interleavings, every task is done exactly once."""

import subprocess
from pathlib import Path

import pytest

from edgec.backends.runner_binary import csrc_folder

DRIVER = Path(__file__).with_name("pool_driver.c")
FLAGS = ["-std=c11", "-O2", "-D_GNU_SOURCE", "-pthread", "-Wall", "-Wextra", "-Werror"]


def _build(program: Path, *flags: str) -> Path:
    csrc = csrc_folder()
    sources = [DRIVER, csrc / "pool.c", csrc / "platform_posix.c"]
    subprocess.run(["gcc", *FLAGS, *flags, f"-I{csrc}", *sources, "-o", program], check=True)
    return program


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Jobs are shared however long one waits: on a busy machine most would be done by the caller alone."""
    return _build(tmp_path_factory.mktemp("pool") / "driver", "-DEDGEC_POOL_PATIENCE_NS=1000000000000")


@pytest.mark.parametrize("runs", [200_000, pytest.param(10_000_000, marks=pytest.mark.long)])
@pytest.mark.parametrize("workers", [1, 3])
def test_every_task_is_done_once(driver: Path, workers: int, runs: int) -> None:
    """A thread that is late for one job must not take tasks of the next; once in some 10^5 jobs one did."""
    done = subprocess.run([driver, str(workers), str(runs)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("workers", [1, 3])
def test_threads_that_stall_are_left_alone(tmp_path: Path, workers: int) -> None:
    """Each job that shares with them costs 5 ms, so it is done ever more seldom: after 80, 160, 320 ms and so on."""
    program = _build(tmp_path / "driver")
    done = subprocess.run([program, str(workers), "500000", "stall"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert 1 <= int(done.stdout) <= 40 * workers
