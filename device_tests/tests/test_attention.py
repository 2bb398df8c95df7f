"""Attention without the matrix of scores: as exporters write it, and trained, on every machine."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from executors import AS_IMPORTED, MACHINES, Executor
from subject import Subject
from torch import Tensor, nn
from torch.nn import functional as F

from edgec.backends.targets import find_target
from edgec.backends.tvm.backend import TvmBackend
from edgec.compiler.compile import compile_module
from edgec.compiler.passbase import Options, Phase
from edgec.compiler.train import Train
from edgec.frontend.onnx import read_onnx
from edgec.frontend.torch import read_torch
from edgec.graph.ir import Module
from edgec.runtime import load
from edgec.runtime.layout import write_artifact
from edgec.tools.testing.attention_net import attention_net

torch.set_num_threads(1)
TOKENS, WIDTH, HEADS = 167, 40, 5

# Odd extents, and tasks that end within a head.
NET = Subject(lambda: attention_net(tokens=TOKENS, heads=HEADS, depth=9), Options(train=Train(batch=2)), Phase.SPARSIFY)
UNSCHEDULED = ("generic", "c-source", "opencl")
LONG = (*UNSCHEDULED, "rpi4", "rpi5")


def net_feeds(batch: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    mask = np.where(rng.random((batch, 1, 1, TOKENS)) < 0.2, -1e30, 0)
    return {"x": rng.normal(size=(batch, TOKENS, 9 * HEADS)).astype(np.float32), "mask": mask.astype(np.float32)}


@pytest.mark.parametrize(
    "machine", [pytest.param(m, marks=pytest.mark.long) if m.name in LONG else m for m in MACHINES], ids=str
)
def test_steps_and_results_are_those_of_the_graph(machine: Executor, tmp_path: Path):
    ours, theirs = machine.open(NET, tmp_path), AS_IMPORTED.open(NET.__class__(NET.lowered), tmp_path)
    steps = [
        net_feeds(2, seed) | {"labels": np.array([seed, 3]), "lr": np.float32(0.05), "rows": np.int32(2)}
        for seed in range(3)
    ]
    got, wanted = ours.run("train", steps), theirs.run("train", steps)
    np.testing.assert_allclose(got.losses, wanted.losses, rtol=2e-5)
    assert any("attention_grad" in name for name in got.kernels) == (machine.name not in UNSCHEDULED)
    one = net_feeds(1, 7)
    got, wanted = ours.run("infer", [one]), theirs.run("infer", [one])
    np.testing.assert_allclose(got.outputs["y"], wanted.outputs["y"], rtol=1e-4, atol=1e-4)
    assert any("f32_attention" in name for name in got.kernels) == (machine.name not in UNSCHEDULED)


# ---- As exporters write it. ----


class Layer(nn.Module):
    """Self-attention of heads, written out; `attend` takes q, k, v [N,H,S,D]."""

    def __init__(self, attend: Callable[[Tensor, Tensor, Tensor], Tensor], groups: int = HEADS):
        super().__init__()
        self.attend, self.size = attend, WIDTH // HEADS
        self.q, self.o = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.k, self.v = (nn.Linear(WIDTH, groups * self.size) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        n, s, _ = x.shape
        q, k, v = (part(x).view(n, s, -1, self.size).transpose(1, 2) for part in (self.q, self.k, self.v))
        return self.o(self.attend(q, k, v).transpose(1, 2).reshape(n, s, WIDTH))


def bert(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    mask = torch.zeros(1, 1, 1, TOKENS)
    mask[..., -7:] = torch.finfo(torch.float32).min
    return F.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + mask, -1) @ v


def gpt(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    allowed = torch.ones(TOKENS, TOKENS).tril().bool()[None, None]
    scores = q @ k.transpose(-1, -2) / torch.full([], q.shape[-1] ** 0.5)
    return F.softmax(torch.where(allowed, scores, torch.full([], torch.finfo(torch.float32).min)), -1) @ v


def halves(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Of the scale, for both operands."""
    scale = math.sqrt(1 / math.sqrt(q.shape[-1]))
    return F.softmax((q * scale) @ (k * scale).transpose(-1, -2), -1) @ v


class MultiHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x, x, x, need_weights=False)[0]


def padded(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    allowed = (torch.arange(TOKENS) < 120)[None, None, None]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)


ATTENTIONS: dict[str, Callable[[], nn.Module]] = {
    "bert": lambda: Layer(bert),
    "gpt": lambda: Layer(gpt),
    "half a scale each": lambda: Layer(halves),
    "scaled_dot_product_attention": lambda: Layer(F.scaled_dot_product_attention),
    "padded": lambda: Layer(padded),
    "causal": lambda: Layer(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True)),
    "multi head": MultiHead,
}


class All(nn.Module):
    """Of all layers that read x, the sum."""

    def __init__(self, layers: Iterable[nn.Module]):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        return sum(layer(x) for layer in self.layers)


def from_torch(module: nn.Module, x: Tensor) -> Module:
    return read_torch(module, (x,))


def from_onnx(module: nn.Module, x: Tensor) -> Module:
    file = io.BytesIO()
    torch.onnx.export(module, (x,), file, input_names=["x"], dynamo=False)
    return read_onnx(file.getvalue())


READERS = {"torch.export": from_torch, "torch.onnx": from_onnx}
# Its exporter asks whether weights are NaN where a mask is one of bools, and their gradient then asks it again.
KEPT_BY_ONNX = "padded"
LR = np.float32(2**20)  # parameters then are gradients


def everything(but: str = "") -> nn.Module:
    torch.manual_seed(0)
    return All(make() for name, make in ATTENTIONS.items() if name != but).eval()


def grouped(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Queries that share keys, which torch's exporter to ONNX does not know."""
    return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)


@pytest.mark.parametrize("read", [pytest.param("torch.export", marks=pytest.mark.long), "torch.onnx"])
@pytest.mark.filterwarnings("ignore")
def test_exported(read: str, tmp_path: Path):
    """As one kernel each, however it was written down."""
    module = everything()
    if read == "torch.export":
        module.layers.append(Layer(grouped, groups=1))
    x = torch.randn(1, TOKENS, WIDTH)
    result = compile_module(READERS[read](module, x), [TvmBackend(find_target("x86"))], Options())
    kernels = [launch.spec.stem for launch in result.schedules[0].programs["infer"].launches]
    assert sum("f32_attention" in kernel for kernel in kernels) == len(module.layers), kernels
    assert not any("softmax" in kernel for kernel in kernels), kernels
    write_artifact(tmp_path / "a.edge", result.artifact)
    with load(tmp_path / "a.edge") as model, torch.no_grad():
        (y,) = model.run({model.inputs[0].name: x.numpy()}).values()
        np.testing.assert_allclose(y, module(x).numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("read", ["torch.export", pytest.param("torch.onnx", marks=pytest.mark.long)])
@pytest.mark.filterwarnings("ignore")
def test_trained(read: str, tmp_path: Path):
    """A step keeps no weights, and makes torch's gradients."""
    module = everything(but=KEPT_BY_ONNX if read == "torch.onnx" else "")
    x, labels = torch.randn(2, TOKENS, WIDTH), torch.randn(2, TOKENS, WIDTH)
    options = Options(train=Train(loss="mse", batch=2))
    result = compile_module(READERS[read](module, x[:1]), [TvmBackend(find_target("x86"))], options)
    schedule = result.schedules[0].programs["train"]
    assert sum("attention_grad" in launch.spec.stem for launch in schedule.launches) == len(module.layers)
    assert not [v for group in schedule.groups for v in group.outputs if v.type.shape[-2:] == (TOKENS, TOKENS)]
    write_artifact(tmp_path / "a.edge", result.artifact)
    module = module.double()
    loss = F.mse_loss(module(x.double()), labels.double())
    loss.backward()
    exact = {name: parameter.grad.numpy() for name, parameter in module.named_parameters()}
    with load(tmp_path / "a.edge") as model:
        before = model.parameters()
        got = model.step({model.inputs[0].name: x.numpy(), "labels": labels.numpy()}, LR)
        after = model.parameters()
    assert got == pytest.approx(loss.item(), rel=1e-5)
    gradients = {name: (before[name].astype(np.float64) - after[name]) / LR for name in before}
    # torch's exporter to ONNX transposes weights, and names them anew.
    sizes, wanted = (sorted(np.abs(gradient).sum() for gradient in g.values()) for g in (gradients, exact))
    np.testing.assert_allclose(sizes, wanted, rtol=1e-3, atol=1e-5)
    for name in exact.keys() & gradients.keys():
        scale = np.abs(exact[name]).max()
        np.testing.assert_allclose(gradients[name], exact[name], rtol=0, atol=1e-4 * scale + 1e-7, err_msg=name)
