"""Who can be compared: a description (JSON) to a function that does one step on fixed data.

Kinds: `edgec` (artifact, program, threads, lr), `onnxruntime` and `openvino` (model, threads), `torch` (model, mode,
program, threads, lr, classes; and where they are not torch's own: trained names, momentum, weight_decay, nesterov).
All draw the same data from the same seed. Peers are imported here, in the worker's process only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgec.runtime import load

if TYPE_CHECKING:
    import torch

Step = Callable[[], object]

TORCH_MODES = ("eager", "channels_last", "compile")


def build_step(spec: Mapping) -> Step:
    return {"edgec": _edgec, "onnxruntime": _onnxruntime, "openvino": _openvino, "torch": _torch}[spec["kind"]](spec)


def draw(shape: tuple[int, ...], dtype: np.dtype, high: int = 1) -> np.ndarray:
    rng = np.random.default_rng(0)
    if np.issubdtype(dtype, np.integer):
        return rng.integers(0, high + 1, shape).astype(dtype)
    return rng.standard_normal(shape).astype(dtype)


def _edgec(spec: Mapping) -> Step:
    model = load(spec["artifact"], threads=spec["threads"])
    signature = model.signature(spec["program"])
    feeds = {info.name: draw(info.shape, info.dtype, (info.bounds or (0, 1))[1]) for info in signature.inputs}
    if spec["program"] == "train":
        return lambda: model.step(feeds, lr=spec["lr"])
    return lambda: model.run(feeds)


def _onnxruntime(spec: Mapping) -> Step:
    import onnxruntime as ort  # noqa: PLC0415  a peer

    options = ort.SessionOptions()
    options.intra_op_num_threads = spec["threads"]
    session = ort.InferenceSession(spec["model"], options, providers=["CPUExecutionProvider"])
    feeds = {name: draw(tuple(shape), np.dtype(np.float32)) for name, shape in spec["shapes"].items()}
    return lambda: session.run(None, feeds)


def _openvino(spec: Mapping) -> Step:
    import openvino as ov  # noqa: PLC0415  a peer

    core = ov.Core()
    model = core.read_model(spec["model"])
    model.reshape({name: list(shape) for name, shape in spec["shapes"].items()})
    config = {
        "INFERENCE_NUM_THREADS": spec["threads"],
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    request = core.compile_model(model, "CPU", config).create_infer_request()
    feeds = {name: draw(tuple(shape), np.dtype(np.float32)) for name, shape in spec["shapes"].items()}
    return lambda: request.infer(feeds)


def _torch(spec: Mapping) -> Step:
    import torch  # noqa: PLC0415  a peer

    torch.set_num_threads(spec["threads"])
    torch.manual_seed(0)
    twin, parameters = _torch_model(spec)
    ((_, shape),) = spec["shapes"].items()
    x = torch.from_numpy(draw(tuple(shape), np.dtype(np.float32)))
    if spec["mode"] != "eager":
        twin, x = twin.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    function = torch.compile(twin) if spec["mode"] == "compile" else twin
    if spec["program"] == "infer":

        def infer() -> object:
            with torch.inference_mode():
                return function(x)

        return infer
    labels = torch.from_numpy(draw((shape[0],), np.dtype(np.int64), spec["classes"] - 1))
    trained = spec.get("trained")
    for name, parameter in parameters.items():
        parameter.requires_grad_(trained is None or name in trained)
    rule = {key: spec[key] for key in ("momentum", "weight_decay", "nesterov") if key in spec}
    optimizer = torch.optim.SGD([p for p in twin.parameters() if p.requires_grad], lr=spec["lr"], **rule)

    def train() -> object:
        optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(function(x), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return train


def _torch_model(spec: Mapping) -> tuple[torch.nn.Module, dict[str, torch.nn.Parameter]]:
    """The model as a torch module that gives logits, for `spec`'s program; its parameters as edgec names them."""
    if spec["model"].endswith(".pt2"):
        from edgec.frontend.torch.archive import load_archive  # noqa: PLC0415  loads torch

        module = load_archive(Path(spec["model"])).module()
        return module, dict(module.named_parameters())
    import onnx  # noqa: PLC0415  a peer needs it

    from edgec.tools.testing.torch_model import OnnxTwin  # noqa: PLC0415  loads torch

    twin = OnnxTwin(onnx.load(spec["model"]), logits=spec["program"] == "train")
    if spec["program"] == "infer":
        twin.eval()
    return twin, twin.named_onnx_parameters()
