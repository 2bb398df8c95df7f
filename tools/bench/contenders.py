"""Who can be compared: a description (JSON) to a function that does one step on fixed data.

Kinds: `edgec` (artifact, program, threads, lr), `onnxruntime` and `openvino` (model, shapes, threads), `torch` (model
or subject, mode, program, threads, shapes, lr, classes; and where they are not torch's own: the optimizer, what it is
told, trained names, and labels, the extents of labels behind the batch), `peak` (threads): a matrix product that stays
in cache, by a generated kernel on one thread. `integers` gives the range of inputs that are no floats. All draw the
same data from the same seed. Peers are imported here, in the worker's process only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgec.backends.targets import find_target
from edgec.runtime import load
from edgec.tools.bench.kernels import peak_calls

if TYPE_CHECKING:
    import torch

Step = Callable[[], object]

_RULES = {
    "sgd": ("momentum", "nesterov", "weight_decay"),
    "adam": ("betas", "weight_decay"),
    "adamw": ("betas", "weight_decay"),
}
TORCH_MODES = ("eager", "channels_last", "compile")


def build_step(spec: Mapping) -> Step:
    kinds = {"edgec": _edgec, "onnxruntime": _onnxruntime, "openvino": _openvino, "torch": _torch, "peak": _peak}
    return kinds[spec["kind"]](spec)


def draw(shape: Sequence[int], dtype: np.dtype, bounds: tuple[int, int] = (0, 1)) -> np.ndarray:
    """Integers are within `bounds`, both included."""
    rng = np.random.default_rng(0)
    if np.issubdtype(dtype, np.integer):
        return rng.integers(bounds[0], bounds[1] + 1, tuple(shape)).astype(dtype)
    return rng.standard_normal(tuple(shape)).astype(dtype)


def _feeds(spec: Mapping) -> dict[str, np.ndarray]:
    integers = spec.get("integers", {})
    return {
        name: draw(shape, np.dtype(np.int64 if name in integers else np.float32), integers.get(name, (0, 1)))
        for name, shape in spec["shapes"].items()
    }


def _edgec(spec: Mapping) -> Step:
    model = load(spec["artifact"], threads=spec["threads"])
    signature = model.signature(spec["program"])
    integers = spec.get("integers", {})
    feeds = {
        info.name: draw(info.shape, info.dtype, integers.get(info.name, info.bounds or (0, 1)))
        for info in signature.inputs
    }
    if spec["program"] == "train":
        return lambda: model.step(feeds, lr=spec["lr"])
    return lambda: model.run(feeds)


def _onnxruntime(spec: Mapping) -> Step:
    import onnxruntime as ort  # noqa: PLC0415  a peer

    options = ort.SessionOptions()
    options.intra_op_num_threads = spec["threads"]
    session = ort.InferenceSession(spec["model"], options, providers=["CPUExecutionProvider"])
    feeds = _feeds(spec)
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
    feeds = _feeds(spec)
    return lambda: request.infer(feeds)


def _torch(spec: Mapping) -> Step:
    import torch  # noqa: PLC0415  a peer

    torch.set_num_threads(spec["threads"])
    torch.manual_seed(0)
    twin, parameters = _torch_model(spec)
    inputs = [torch.from_numpy(array) for array in _feeds(spec).values()]
    if spec["mode"] != "eager":
        twin = twin.to(memory_format=torch.channels_last)
        inputs = [x.to(memory_format=torch.channels_last) if x.dim() == 4 else x for x in inputs]
    function = torch.compile(twin) if spec["mode"] == "compile" else twin
    if spec["program"] == "infer":

        def infer() -> object:
            with torch.inference_mode():
                return function(*inputs)

        return infer
    shape = (len(inputs[0]), *spec.get("labels", ()))
    labels = torch.from_numpy(draw(shape, np.dtype(np.int64), (0, spec["classes"] - 1)))
    trained = spec.get("trained")
    for name, parameter in parameters.items():
        parameter.requires_grad_(trained is None or name in trained)
    name = spec.get("optimizer", "sgd")
    make = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name]
    rule = {key: spec[key] for key in _RULES[name] if spec.get(key) is not None}
    optimizer = make([p for p in twin.parameters() if p.requires_grad], lr=spec["lr"], fused=True, **rule)

    def train() -> object:
        optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(function(*inputs), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return train


def _peak(spec: Mapping) -> Step:
    return peak_calls(find_target("x86"))


def _torch_model(spec: Mapping) -> tuple[torch.nn.Module, dict[str, torch.nn.Parameter]]:
    """The model as a torch module that gives logits, for `spec`'s program; its parameters as edgec names them."""
    import torch  # noqa: PLC0415  a peer

    if "subject" in spec:
        from edgec.tools.bench.subjects import SUBJECTS  # noqa: PLC0415  loads torch

        module = SUBJECTS[spec["subject"]].make().eval()
        for part in module.modules():
            if isinstance(part, torch.nn.BatchNorm2d):
                part.train(spec.get("batch_norm") == "train")
        return module, dict(module.named_parameters())
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
