"""The trace of a profile: tracks, nesting, units and arguments, as the Trace Event Format has them."""

from edgec.runtime import CallProfile
from edgec.tools.trace import stem, trace


def _call(kernel: str, start: int, duration: int, macs: int = 0, program: str = "train") -> CallProfile:
    return CallProfile(program, f"edgec_{kernel}__0badcafe", f"nodes of {kernel}", start, duration, macs)


RUN = [_call("f32_conv2d_relu", 100, 2000, macs=4000), _call("f32_softmax", 2200, 300)]


def _slices(made: dict, category: str) -> list[dict]:
    return [event for event in made["traceEvents"] if event.get("cat") == category]


def test_calls_are_named_by_kernel_and_say_what_they_compute() -> None:
    first, second = _slices(trace("m.edge", 2, [RUN]), "kernel")
    assert first["name"] == "f32_conv2d_relu" and first["ph"] == "X"
    assert (first["ts"], first["dur"]) == (0.1, 2.0)
    assert first["args"] == {
        "computes": "nodes of f32_conv2d_relu",
        "kernel": "edgec_f32_conv2d_relu__0badcafe",
        "macs": 4000,
        "gflops": 4.0,
    }
    assert "gflops" not in second["args"]


def test_every_run_has_a_slice_around_its_calls_and_follows_the_one_before() -> None:
    made = trace("m.edge", 1, [RUN, RUN, RUN])
    runs, calls = _slices(made, "program"), _slices(made, "kernel")
    assert [run["ts"] for run in runs] == [0.0, 2.5, 5.0] and {run["dur"] for run in runs} == {2.5}
    for number, run in enumerate(runs):
        for call in calls[2 * number : 2 * number + 2]:
            assert run["ts"] <= call["ts"] and call["ts"] + call["dur"] <= run["ts"] + run["dur"] + 1e-9
            assert call["tid"] == run["tid"]
    assert runs[0]["args"] == {"macs": 4000, "calls": 2}


def test_programs_have_tracks_with_names() -> None:
    made = trace("m.edge", 2, [RUN, [_call("f32_map", 0, 5, program="eval")]])
    names = {event["tid"]: event["args"]["name"] for event in made["traceEvents"] if event["ph"] == "M"}
    assert names == {0: "m.edge", 1: "train, 2 threads", 2: "eval, 2 threads"}
    assert {event["tid"] for event in made["traceEvents"] if event["ph"] == "X"} == {1, 2}


def test_names_of_kernels() -> None:
    assert stem("edgec_f32_conv2d_relu__1f2e3d4c") == "f32_conv2d_relu"
    assert stem("guard") == "guard"
