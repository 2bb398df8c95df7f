"""Sessions: in threads, beside each other, through a fork, and when a model is closed."""

import gc
import subprocess
import sys
import threading

import numpy as np
import pytest
from sample_artifact import HERE, feeds

from edgec.runtime import load


@pytest.mark.parametrize("threads", [2, 3, 4])
def test_threads_do_not_change_a_bit(path, threads):
    batch = feeds(2)
    with load(path, threads=1) as one, load(path, threads=threads) as many:
        for _ in range(50):
            assert one.step(batch, lr=0.03) == many.step(batch, lr=0.03)
            np.testing.assert_array_equal(one.run({"x": batch["x"]})["y"], many.run({"x": batch["x"]})["y"])
        np.testing.assert_array_equal(one.parameters()["w"], many.parameters()["w"])


def test_sessions_side_by_side(path):
    """Inference in three sessions while a fourth thread trains: every result belongs to some whole step."""
    batch, rounds = feeds(3), 300
    with load(path, threads=1) as model, load(path, threads=1) as alone:
        allowed = {alone.run({"x": batch["x"]})["y"].tobytes()}
        for _ in range(rounds):
            alone.step(batch, lr=0.02)
            allowed.add(alone.run({"x": batch["x"]})["y"].tobytes())
        assert len(allowed) > rounds // 2
        seen, failures = set(), []
        ready, inferred, trained = threading.Barrier(4), threading.Event(), threading.Event()

        def infer(threads):
            try:
                with model.session(threads) as session:
                    ready.wait()
                    while not trained.is_set():
                        seen.add(session.run("infer", {"x": batch["x"]})[1]["y"].tobytes())
                        inferred.set()
                    seen.add(session.run("infer", {"x": batch["x"]})[1]["y"].tobytes())
            except Exception as error:  # a thread's own would be lost
                failures.append(error)
                ready.abort()

        others = [threading.Thread(target=infer, args=(threads,)) for threads in (1, 1, 2)]
        for other in others:
            other.start()
        ready.wait()
        for number in range(rounds):
            if number % 30 == 15:  # on a busy machine all steps may else be done before another thread runs
                inferred.clear()
                assert inferred.wait(timeout=60) or failures
            model.step(batch, lr=0.02)
        trained.set()
        for other in others:
            other.join()
        assert not failures and len(seen) > 1 and seen <= allowed
        np.testing.assert_array_equal(model.parameters()["w"], alone.parameters()["w"])


def test_one_session_in_many_threads(model):
    x = [feeds(seed)["x"] for seed in range(4)]
    expected = [model.run({"x": each})["y"] for each in x]
    wrong = []

    def infer(number):
        for _ in range(50):
            if (model.run({"x": x[number]})["y"] != expected[number]).any():
                wrong.append(number)

    threads = [threading.Thread(target=infer, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_closing(path):
    model = load(path, threads=2)
    session = model.session(2)
    model.close()
    model.close()
    for use in (lambda: model.run({"x": feeds()["x"]}), model.parameters, lambda: model.session(1)):
        with pytest.raises(ValueError, match="closed"):
            use()
    with pytest.raises(ValueError, match="closed"):
        session.run("infer", {"x": feeds()["x"]})


def test_a_session_keeps_its_model_open(path):
    model = load(path, threads=2)
    session, expected = model.session(1), model.run({"x": feeds()["x"]})["y"]
    del model
    gc.collect()
    np.testing.assert_array_equal(session.run("infer", {"x": feeds()["x"]})[1]["y"], expected)


def test_a_fork_runs_and_exits(path):
    """Without the threads, which a fork does not have: neither a run nor the exit waits for them.

    Forked at many moments after a run, because a thread on its way to sleep holds a lock that a fork never gets back.
    """
    script = f"""
import os, sys, time
sys.path.insert(0, {str(HERE)!r})
from sample_artifact import feeds
from edgec.runtime import load
model = load({str(path)!r}, threads=3)
x = feeds()["x"]
expected = model.run({{"x": x}})["y"]
for attempt in range(300):
    model.run({{"x": x}})
    until = time.perf_counter() + attempt * 0.5e-6
    while time.perf_counter() < until:
        pass
    child = os.fork()
    if child == 0:
        sys.exit(0 if (model.run({{"x": x}})["y"] == expected).all() else 1)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0:
        sys.exit(1)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=300)


def test_threads_must_be_positive(path):
    with pytest.raises(ValueError, match="at least 1"):
        load(path, threads=0)


LEFT_OPEN = """
import sys
from edgec.runtime import load, session
session._close_session = lambda *_: print("closed")
with load(sys.argv[1], threads=2) as model:
    model.session(2).run("infer", {"x": feeds()["x"]})
    gone = model.session(2)
    del gone
model = load(sys.argv[1], threads=2)
left = model.session(2)
left.run("infer", {"x": feeds()["x"]})
print("end")
"""


def test_a_process_that_ends_closes_nothing(path):
    """Who shares a GPU with it may have ended before. What goes earlier, or is closed, still is."""
    program = f"import sys; sys.path.insert(0, {str(HERE)!r})\nfrom sample_artifact import feeds\n{LEFT_OPEN}"
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-2:] == ["closed", "end"]
