"""Runs each job in a process of its own: a crash, a hang or a flood of messages of one is a report, not our end.

A supervisor process is forked first and imports the heavy library once; it forks one child for every job, a few at a
time. The caller's process stays free of the library, and a child costs a few milliseconds.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

_FORK = multiprocessing.get_context("fork")
_QUOTE = 1500  # characters from either end of a failed job's output that its report quotes
_PREPARATION = -1  # stands for the supervisor itself where the number of a job is expected


class JobFailure(Exception):
    """Job number `job` (None: what comes before all jobs) ended without a result. `log` is an excerpt of its output."""

    def __init__(self, job: int | None, reason: str, log: str):
        super().__init__(reason)
        self.job, self.reason, self.log = job, reason, log


class _CallerGone(Exception):
    """The process that wanted the results was killed."""


def run_isolated(
    jobs: Sequence[Callable[[], bytes]],
    *,
    prepare: Callable[[], object],
    processes: int,
    timeout: float,
    finished: Callable[[int, bytes], None],
) -> None:
    """Call every job in a child process, at most `processes` at a time; `finished(number, result)` gets each result.

    prepare: called once, before the children are forked, in a process that is not the caller's.
    timeout: seconds that one job may take.
    Raises JobFailure for the first job that fails; the others are stopped.
    """
    with tempfile.TemporaryDirectory(prefix="edgec-build-") as name:
        folder = Path(name)
        receiver, sender = _FORK.Pipe(duplex=False)
        supervisor = _FORK.Process(target=_supervise, args=(jobs, prepare, processes, timeout, folder, sender))
        supervisor.start()
        sender.close()
        try:
            for number, reason in _messages(receiver, len(jobs)):
                job = None if number == _PREPARATION else number
                if reason is not None:
                    raise JobFailure(job, reason, _excerpt(folder, number))
                finished(number, (folder / f"{number}.out").read_bytes())
        finally:
            supervisor.terminate()
            supervisor.join()
            receiver.close()


def _messages(receiver: Connection, count: int) -> Iterator[tuple[int, str | None]]:
    for _ in range(count):
        try:
            yield receiver.recv()
        except EOFError:
            yield _PREPARATION, "the supervisor of the compile processes died"


def _excerpt(folder: Path, number: int) -> str:
    try:
        text = (folder / f"{number}.log").read_text(errors="replace").strip()
    except OSError:
        return ""
    return text if len(text) <= 2 * _QUOTE else f"{text[:_QUOTE]}\n...\n{text[-_QUOTE:]}"


def _supervise(
    jobs: Sequence[Callable[[], bytes]],
    prepare: Callable[[], object],
    processes: int,
    timeout: float,
    folder: Path,
    sender: Connection,
) -> None:
    # `terminate` must run the `finally` below, or children would outlive us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    running: dict[int, tuple[BaseProcess, float]] = {}
    waiting = iter(range(len(jobs)))
    try:
        _redirect_output(folder / f"{_PREPARATION}.log")
        try:
            prepare()
        except BaseException:
            traceback.print_exc()
            sender.send((_PREPARATION, "loading the code generator failed"))
            return
        while True:
            for number in waiting:
                child = _FORK.Process(target=_child, args=(jobs[number], number, folder, sender), daemon=True)
                child.start()
                running[number] = child, time.monotonic() + timeout
                if len(running) >= processes:
                    break
            if not running:
                return
            for number in _ended(running):
                child, deadline = running.pop(number)
                sender.send((number, _verdict(child, deadline, timeout)))
    except (BrokenPipeError, _CallerGone, KeyboardInterrupt):
        pass
    finally:
        for child, _ in running.values():
            child.kill()
            child.join()


def _ended(running: dict[int, tuple[BaseProcess, float]]) -> list[int]:
    """Numbers of children that have ended or are out of time; waits for at least one."""
    caller = multiprocessing.parent_process().sentinel
    while True:
        now = time.monotonic()
        nearest = min(deadline for _, deadline in running.values())
        done = set(wait([caller, *(child.sentinel for child, _ in running.values())], max(0.0, nearest - now)))
        if caller in done:
            raise _CallerGone
        now = time.monotonic()
        ended = [n for n, (child, deadline) in running.items() if child.sentinel in done or deadline <= now]
        if ended:
            return ended


def _verdict(child: BaseProcess, deadline: float, timeout: float) -> str | None:
    """Why a child's job has no result, or None if it has one. The child is gone afterwards."""
    if child.is_alive() and time.monotonic() >= deadline:
        child.kill()
        child.join()
        return f"did not finish within {timeout:g} s"
    child.join()
    if child.exitcode == 0:
        return None
    if child.exitcode < 0:
        return f"crashed with {signal.Signals(-child.exitcode).name}"
    return "failed"


def _child(job: Callable[[], bytes], number: int, folder: Path, sender: Connection) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sender.close()  # so that the supervisor's death ends the caller's waiting
    _redirect_output(folder / f"{number}.log")
    try:
        result = job()
    except BaseException:
        traceback.print_exc()
        sys.exit(1)
    (folder / f"{number}.out").write_bytes(result)


def _redirect_output(path: Path) -> None:
    """Everything this process writes to stdout or stderr, C++ libraries included, goes to a file from now on.

    Nothing is flushed: `multiprocessing` did that before the fork, and a thread that is not here any more, such as that
    of a progress bar, may have held the streams' locks.
    """
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    sys.stdout = sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    faulthandler.enable()  # a crash leaves its Python stack in the log
