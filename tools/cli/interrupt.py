"""Ctrl-C and SIGTERM as a wish to stop at the next good moment; a second one ends the process at once."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def polite_interrupts() -> Iterator[Callable[[], bool]]:
    """Inside `with`, the function that it gives tells whether a signal came. Needs the main thread."""
    came = False
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal came
        came = True
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in _SIGNALS:
        signal.signal(number, note)
    try:
        yield lambda: came
    finally:
        restore()
