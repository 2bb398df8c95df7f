"""Jobs in other processes, begun by a process that has seen other work."""

import gc
import os

from edgec.backends.tvm.isolate import run_isolated


class Trap:
    """Garbage of the caller whose destructor does not end well in another process: that of an inference session waits
    there for threads which a fork does not have.
    """

    def __init__(self):
        self.cycle, self.home = self, os.getpid()

    def __del__(self):
        if os.getpid() != self.home:
            os._exit(3)


def test_garbage_of_the_caller_is_left_alone():
    gc.collect()
    gc.disable()
    try:
        Trap()
        made = []
        run_isolated(
            [lambda: str(gc.collect()).encode()],
            prepare=gc.collect,
            processes=1,
            timeout=60,
            finished=lambda number, result: made.append(number),
        )
    finally:
        gc.enable()
    assert made == [0]
