"""An artifact against other engines running the model it came from: each in its best configuration, side by side."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgec.graph.errors import UserError
from edgec.runtime import Signature, load
from edgec.runtime.layout import read_artifact
from edgec.tools.bench.compare import Timing, compare
from edgec.tools.bench.contenders import TORCH_MODES

# Small enough that thousands of steps on one batch stay finite, on all sides.
_LEARNING_RATE = 1e-6


@dataclass(frozen=True)
class Peer:
    """An engine: the modules that must be installed, what installs them, its configurations by program, and the kinds
    of model files that it runs.
    """

    modules: tuple[str, ...]
    install: str
    configurations: Mapping[str, Sequence[Mapping[str, str]]]
    reads: tuple[str, ...] = (".onnx",)


_TORCH = [{"kind": "torch", "mode": mode} for mode in TORCH_MODES]
PEERS = {
    "onnxruntime": Peer(("onnxruntime",), "pip install onnxruntime", {"infer": [{"kind": "onnxruntime"}]}),
    "openvino": Peer(("openvino",), "pip install 'edgec[bench]'", {"infer": [{"kind": "openvino"}]}),
    "torch": Peer(
        ("torch", "onnx"),
        "pip install torch --index-url https://download.pytorch.org/whl/cpu",
        {"infer": _TORCH, "train": _TORCH},
        reads=(".onnx", ".pt2"),
    ),
    "tflite": Peer(("ai_edge_litert",), "pip install ai-edge-litert", {"infer": []}, reads=(".tflite",)),
}


@dataclass(frozen=True)
class Measured:
    """A peer's best: `ratio` is our time by its time, so below 1 we are faster. `mode` names the configuration."""

    median_ms: float
    spread_ms: float
    ratio: float
    mode: str = ""


@dataclass(frozen=True)
class Bench:
    """Milliseconds of a run; `left_out` says by name why a peer was not measured."""

    program: str
    threads: int
    median_ms: float
    spread_ms: float
    peers: Mapping[str, Measured]
    left_out: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        peers = {name: {key: value for key, value in vars(m).items() if value != ""} for name, m in self.peers.items()}
        return {**vars(self), "peers": peers, "left_out": dict(self.left_out)}


def unavailable(name: str, program: str, source: Path) -> str | None:
    """Why peer `name` cannot run `program` of the model `source` here, or None."""
    peer = PEERS[name]
    if source.suffix not in peer.reads:
        return f"it runs {' and '.join(peer.reads)} files, and the artifact was compiled from {source.name}"
    if any(importlib.util.find_spec(module) is None for module in peer.modules):
        return f"not installed: {peer.install}"
    if program not in peer.configurations:
        return f"it has no program `{program}`"
    return None


def bench(artifact: Path, program: str, threads: int, peers: Sequence[str], source: Path | None, rounds: int) -> Bench:
    """Time `program`, and each of `peers` running `source`, the model. UserError E0606, E0608."""
    left_out = {name: reason for name in peers if (reason := unavailable(name, program, source)) is not None}
    contenders: dict[str, dict[str, Any]] = {}
    with load(artifact, threads=1) as model:
        signature, trained = model.signature(program), model.trained
    common = {"program": program, "threads": threads, "lr": _LEARNING_RATE}
    contenders["edgec"] = {"kind": "edgec", "artifact": str(artifact), **common}
    for name in peers:
        if name not in left_out:
            described = {"model": str(source), **common, **_task(artifact, signature), "trained": trained}
            for configuration in PEERS[name].configurations[program]:
                contenders[" ".join((name, *list(configuration.values())[1:]))] = {**described, **configuration}
    timings = compare(contenders, rounds=rounds)
    ours = timings.pop("edgec")
    if ours.error:
        raise UserError("E0608", f"the artifact could not be measured: {ours.error}", where=str(artifact))
    measured = {}
    for name in [name for name in peers if name not in left_out]:
        best, reason = _best(name, timings)
        if best is None:
            left_out[name] = f"it failed: {reason}"
        else:
            timing = timings[best]
            mode = best.removeprefix(name).strip()
            ratio = ours.median_ms / timing.median_ms
            measured[name] = Measured(timing.median_ms, timing.spread_ms, ratio, mode)
    return Bench(program, threads, ours.median_ms, ours.spread_ms, measured, left_out)


def _task(artifact: Path, signature: Signature) -> dict[str, Any]:
    """What a peer must do to do the same: shapes of the model's inputs, classes, and the optimizer's settings."""
    manifest = read_artifact(artifact).manifest
    labels = [info for info in signature.inputs if info.bounds is not None]
    inputs = [info for info in signature.inputs if info.bounds is None]
    images = manifest.get("images", {})
    shapes = {info.name: _model_shape(info.shape, info.name in images) for info in inputs}
    task: dict[str, Any] = {"shapes": shapes, "classes": labels[0].bounds[1] + 1 if labels else 1}
    train = manifest.get("train") or {}
    return task | {
        key: train[key] for key in ("optimizer", "momentum", "weight_decay", "nesterov", "betas") if key in train
    }


def _model_shape(shape: tuple[int, ...], image: bool) -> tuple[int, ...]:
    """An image [N,H,W,C] is [N,C,H,W] to the model."""
    return (shape[0], shape[3], shape[1], shape[2]) if image else shape


def _best(name: str, timings: Mapping[str, Timing]) -> tuple[str | None, str]:
    """The fastest configuration of a peer, or None and why none ran."""
    own = {key: timing for key, timing in timings.items() if key.split(" ")[0] == name}
    ran = [key for key, timing in own.items() if not timing.error]
    if not ran:
        return None, next((timing.error for timing in own.values()), "no configuration")
    return min(ran, key=lambda key: own[key].median_ms), ""
