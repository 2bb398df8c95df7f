"""Runs programs of an artifact through OpenCL in a process of its own, behind shim_opencl.c; prints JSON.

    python device_tests/opencl_child.py ARTIFACT FEEDS.npz RESULTS.npz PROGRAM:STEPS ...

FEEDS holds `PROGRAM/NAME` with the arrays of several steps side by side, which are taken in turn; RESULTS gets
`PROGRAM/NAME` of the last step, and `PROGRAM/losses` where there are losses.
"""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path

import numpy as np

from edgec.runtime import RuntimeFailure, load

COUNTS = ("sources", "binaries", "waits", "launches", "largest_group", "live_bytes", "live_objects")


def counts() -> dict[str, int]:
    shim = ctypes.CDLL("libOpenCL.so.1")
    shim.shim_count.restype = ctypes.c_int64
    return {name: shim.shim_count(name.encode()) for name in COUNTS}


def resident() -> int:
    """Of this process, in KB."""
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0])


def main(artifact: str, feeds: str, results: str, *jobs: str) -> None:
    stacked = dict(np.load(feeds))
    arrays, record = {}, {"counts": {}, "resident": {}, "profile": {}}
    try:
        model = load(artifact, target="mobile-gpu")
    except RuntimeFailure as failure:
        sys.stdout.write(json.dumps({"error": failure.code, "message": failure.message, "hint": failure.hint}))
        return
    with model, model.session() as session:
        record["counts"]["opened"] = counts()
        for job in jobs:
            program, _, steps = job.rpartition(":")
            own = {name.rpartition("/")[2]: a for name, a in stacked.items() if name.startswith(f"{program}/")}
            losses, outputs = [], {}
            for step in range(int(steps)):
                batch = {name: array[step % len(array)] for name, array in own.items()}
                loss, outputs = session.run(program, batch)
                losses.append(loss)
            record["counts"][job], record["resident"][job] = counts(), resident()
            with session.profile() as calls:
                session.run(program, batch)
            record["profile"][job] = [(call.kernel, call.ns) for call in calls]
            arrays |= {f"{program}/{name}": array for name, array in outputs.items()}
            if None not in losses:
                arrays[f"{program}/losses"] = np.float32(losses)
    record["counts"]["closed"] = counts()
    np.savez(results, **arrays)
    sys.stdout.write(json.dumps(record))


if __name__ == "__main__":
    main(*sys.argv[1:])
