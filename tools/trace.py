"""Kernel calls as a trace in the Trace Event Format of Chrome, which Perfetto (ui.perfetto.dev) opens.

One process for the artifact, one track for each program. On the track stands a slice for every run, and inside it one
for every call, named by its kernel; what it computes, multiply-accumulates and GFLOP/s are its arguments.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from edgec.runtime import CallProfile

_PROCESS = 1
_PREFIX, _HASH = "edgec_", "__"


def trace(artifact: str, threads: int, runs: Sequence[Sequence[CallProfile]]) -> dict[str, Any]:
    """The JSON object of a trace of `runs`, in order; the pauses between them are left out."""
    tracks = {name: number for number, name in enumerate(dict.fromkeys(calls[0].program for calls in runs if calls), 1)}
    count = f"{threads} thread{'s' * (threads > 1)}"
    events = [_metadata("process_name", 0, artifact)]
    events += [_metadata("thread_name", track, f"{name}, {count}") for name, track in tracks.items()]
    begin = 0
    for calls in runs:
        if calls:
            events += _run(calls, tracks[calls[0].program], begin)
            begin += _end(calls)
    return {"traceEvents": events, "displayTimeUnit": "ns", "otherData": {"artifact": artifact, "threads": threads}}


def stem(kernel: str) -> str:
    """`edgec_f32_conv2d_relu__1f2e3d4c` is `f32_conv2d_relu`."""
    return kernel.removeprefix(_PREFIX).partition(_HASH)[0]


def _run(calls: Sequence[CallProfile], track: int, begin: int) -> Iterator[dict[str, Any]]:
    macs = sum(call.macs for call in calls)
    yield _slice(calls[0].program, "program", track, begin, _end(calls), {"macs": macs, "calls": len(calls)})
    for call in calls:
        arguments = {"computes": call.label, "kernel": call.kernel, "macs": call.macs}
        if call.macs and call.ns:
            arguments["gflops"] = round(2 * call.macs / call.ns, 2)
        yield _slice(stem(call.kernel), "kernel", track, begin + call.start_ns, call.ns, arguments)


def _end(calls: Iterable[CallProfile]) -> int:
    return max(call.start_ns + call.ns for call in calls)


def _slice(name: str, category: str, track: int, start: int, duration: int, arguments: dict) -> dict[str, Any]:
    """A complete event; times in nanoseconds here, in microseconds there."""
    return {
        "name": name,
        "cat": category,
        "ph": "X",
        "ts": start / 1e3,
        "dur": duration / 1e3,
        "pid": _PROCESS,
        "tid": track,
        "args": arguments,
    }


def _metadata(name: str, track: int, value: str) -> dict[str, Any]:
    return {"name": name, "ph": "M", "pid": _PROCESS, "tid": track, "args": {"name": value}}
