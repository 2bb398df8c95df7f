"""Runs jobs in other processes: a crash, a hang or a flood of messages of one is a report, not our end.

A supervisor process is forked first and imports the heavy library once; it forks a few workers, which take one job
after another. The caller's process stays free of the library, and a fork, dear with so much memory, pays for many jobs.
"""

from __future__ import annotations

import faulthandler
import gc
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
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
    """Call every job in one of at most `processes` workers; `finished(number, result)` gets each result.

    prepare: called once, before the workers are forked, in a process that is not the caller's.
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
    # The caller's garbage stays: a destructor that waits for threads, which a fork does not have, never ends.
    gc.freeze()
    # `terminate` must run the `finally` below, or workers would outlive us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    tempfile.tempdir = str(folder)  # workers are killed where they stand: what they leave goes with the folder
    idle: list[_Worker] = []
    busy: list[_Worker] = []
    waiting = deque(range(len(jobs)))
    try:
        _redirect_output(folder / f"{_PREPARATION}.log")
        try:
            prepare()
        except BaseException:
            traceback.print_exc()
            sender.send((_PREPARATION, "loading the code generator failed"))
            return
        while waiting or busy:
            while waiting and len(busy) < processes:
                worker = idle.pop() if idle else _Worker(jobs, folder, sender)
                busy.append(worker)
                worker.begin(waiting.popleft(), timeout)
            for worker in _ready(busy):
                reason = worker.verdict(timeout)
                sender.send((worker.number, reason))
                if reason is not None:
                    return
                busy.remove(worker)
                idle.append(worker)
    except (BrokenPipeError, _CallerGone, KeyboardInterrupt):
        pass
    finally:
        for worker in (*idle, *busy):
            worker.kill()


class _Worker:
    """A child process that does the jobs it is told to, until it is killed, or one of them fails."""

    def __init__(self, jobs: Sequence[Callable[[], bytes]], folder: Path, sender: Connection):
        self.connection, theirs = _FORK.Pipe()
        self.process = _FORK.Process(target=_serve, args=(jobs, folder, theirs, (sender, self.connection)), daemon=True)
        self.process.start()
        theirs.close()
        self.number = _PREPARATION
        self.deadline = 0.0

    def begin(self, number: int, timeout: float) -> None:
        self.number, self.deadline = number, time.monotonic() + timeout
        self.connection.send(number)

    def verdict(self, timeout: float) -> str | None:
        """Why the job has no result, or None if it has one; the worker is gone if it has none."""
        if not self.connection.poll():
            self.kill()
            return f"did not finish within {timeout:g} s"
        try:
            self.connection.recv()
            return None
        except EOFError:
            self.process.join()
        code = self.process.exitcode
        return f"crashed with {signal.Signals(-code).name}" if code < 0 else "failed"

    def kill(self) -> None:
        self.process.kill()
        self.process.join()


def _ready(busy: Sequence[_Worker]) -> list[_Worker]:
    """Workers that are done, gone or out of time; waits for at least one."""
    caller = multiprocessing.parent_process().sentinel
    while True:
        nearest = min(worker.deadline for worker in busy)
        done = set(wait([caller, *(w.connection for w in busy)], max(0.0, nearest - time.monotonic())))
        if caller in done:
            raise _CallerGone
        now = time.monotonic()
        ready = [worker for worker in busy if worker.connection in done or worker.deadline <= now]
        if ready:
            return ready


def _serve(
    jobs: Sequence[Callable[[], bytes]], folder: Path, connection: Connection, inherited: Sequence[Connection]
) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for end in inherited:
        end.close()  # so that the supervisor's death ends the caller's waiting, and ours
    while True:
        try:
            number = connection.recv()
        except EOFError:
            return
        _redirect_output(folder / f"{number}.log")
        try:
            result = jobs[number]()
        except BaseException:
            traceback.print_exc()
            sys.exit(1)
        (folder / f"{number}.out").write_bytes(result)
        connection.send(number)


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
