"""One contender of a comparison, in a process of its own: builds its step, then runs it when told.

    python -m edgec.tools.bench.worker '{"kind": "edgec", ...}'

Reads a number of repetitions a line from stdin and answers with a JSON line: seconds of each, and the processor's time
that it took. The first line it writes says that it is ready, or why it cannot be. See `contenders.py` for the kinds.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable

from edgec.tools.bench.contenders import build_step


def main(description: str) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever libraries print is not an answer
    try:
        step = build_step(json.loads(description))
        step()
    except Exception as error:
        answers.write(json.dumps({"error": f"{type(error).__name__}: {error}"[:400]}) + "\n")
        answers.flush()
        return
    answers.write(json.dumps({"ready": True}) + "\n")
    answers.flush()
    for line in sys.stdin:
        answers.write(json.dumps(measure(step, int(line))) + "\n")
        answers.flush()


def measure(step: Callable[[], object], repetitions: int) -> list[tuple[float, float]]:
    seconds = []
    for _ in range(repetitions):
        cpu, start = time.process_time(), time.perf_counter()
        step()
        seconds.append((time.perf_counter() - start, time.process_time() - cpu))
    return seconds


if __name__ == "__main__":
    main(sys.argv[1])
