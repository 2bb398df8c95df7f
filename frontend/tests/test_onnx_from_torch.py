"""Models as torch's exporter writes them, with a dynamic batch."""

import io
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from edgec.frontend.onnx import read_onnx
from edgec.graph.interp import run
from edgec.graph.ir import Role
from edgec.graph.verify import Phase, verify_graph


class Network(nn.Module):
    """Layers of MobileNet kind, a shape computed at run time, and two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1),
            nn.Hardswish(),
            nn.Conv2d(8, 8, 3, padding=1, groups=8),
            nn.ReLU6(),
            nn.MaxPool2d(3, 2, 1, ceil_mode=True),
            nn.Dropout(),
            nn.AdaptiveAvgPool2d(1),
        )
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.features(x)
        x = self.head(x.view(x.size(0), -1))
        return torch.softmax(x, 1), nn.functional.leaky_relu(x)[:, 1:3].mean(-1, keepdim=True)


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    return Network().eval()


@pytest.fixture(scope="module")
def exported(network: Network) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = {"input_names": ["x"], "output_names": ["classes", "mean"], "dynamic_axes": {"x": {0: "N"}}}
        torch.onnx.export(network, (torch.randn(2, 3, 32, 32),), file, dynamo=False, **names)
    return file.getvalue()


@pytest.mark.parametrize("batch", [1, 5])
def test_torch_export(network: Network, exported: bytes, batch: int):
    graph = read_onnx(exported, batch=batch).programs["infer"]
    verify_graph(graph, Phase.IMPORTED)
    x = np.random.default_rng(batch).normal(size=(batch, 3, 32, 32)).astype(np.float32)
    outputs = run(graph, {"x": x}).outputs
    with torch.no_grad():
        for name, expected in zip(("classes", "mean"), network(torch.from_numpy(x)), strict=True):
            np.testing.assert_allclose(outputs[name], expected.numpy(), atol=1e-5)
    assert {leaf.name for leaf in graph.by_role(Role.PARAM)} == set(network.state_dict())
