"""A `.pt2` file all the way by the command line: checked, compiled, verified, trained, and back in torch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import edgec
from edgec.tools.cli import main
from edgec.tools.safetensors import read_safetensors
from edgec.tools.testing.torch_models import awake, conv_norm

torch.set_num_threads(1)
BATCH, SAMPLES = 4, 12
X = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def network() -> nn.Module:
    body = (conv_norm(1, 4), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3))
    return awake(nn.Sequential(*body), X)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("torch")
    torch.export.save(torch.export.export(network(), (X,)), folder / "m.pt2")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((SAMPLES, 1, 8, 8)).astype(np.float32)
    np.savez(folder / "data.npz", input=x, labels=rng.integers(0, 3, SAMPLES))
    return folder


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """A command in the folder: its exit status and what it said."""
    monkeypatch.chdir(folder)

    def command(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main(list(words))
        said = capsys.readouterr()
        return caught.value.code or 0, said.out, said.err

    return command


def of_torch(module: nn.Module) -> np.ndarray:
    with torch.no_grad():
        return module(X).numpy()


def test_a_pt2_file_from_check_to_export(run, folder: Path) -> None:
    train = ("--train", "--train-batch", str(BATCH))
    assert run("check", "m.pt2", *train)[0] == 0
    assert run("compile", "m.pt2", *train, "-o", "m.edge")[0] == 0
    assert run("verify", "m.pt2", "m.edge")[0] == 0
    words = ("train", "m.edge", "--data", "data.npz", "--epochs", "2", "--lr", "0.1", "--checkpoint", "c.edgeckpt")
    status, out, _ = run(*words, "--json")
    assert status == 0 and len(json.loads(out)["losses"]) == 2 * SAMPLES // BATCH
    with edgec.load(folder / "m.edge", threads=1) as model:
        before = model.run({"input": X.numpy()})["output"]
        model.load_checkpoint(folder / "c.edgeckpt")
        after = model.run({"input": X.numpy()})["output"]
    assert np.abs(after - before).max() > 0.05 * np.abs(before).max()

    status, out, _ = run("export", "m.edge", "--checkpoint", "c.edgeckpt", "-o", "tuned.pt2")
    assert status == 0 and "5 trained tensors in m.pt2" in out
    np.testing.assert_allclose(of_torch(torch.export.load(folder / "tuned.pt2").module()), after, atol=1e-5)
    assert run("export", "m.edge", "--checkpoint", "c.edgeckpt", "-o", "tuned.safetensors")[0] == 0
    module = network()
    weights = {name: torch.from_numpy(array) for name, array in read_safetensors(folder / "tuned.safetensors").items()}
    module.load_state_dict(weights)
    np.testing.assert_allclose(of_torch(module), after, atol=1e-5)
    status, _, err = run("export", "m.edge", "--checkpoint", "c.edgeckpt", "-o", "tuned.onnx")
    assert status == 1 and "error[E0505]" in err and "tuned.pt2" in err


def test_an_artifact_of_a_module_in_memory_gives_its_weights(run, folder: Path) -> None:
    edgec.compile(network(), example_inputs=(X,), out=folder / "n.edge", train=edgec.Train(batch=BATCH, update="head"))
    with edgec.load(folder / "n.edge", threads=1) as model:
        model.save_checkpoint(folder / "n.edgeckpt")
    status, _, err = run("export", "n.edge", "--checkpoint", "n.edgeckpt", "-o", "n.pt2")
    assert status == 1 and "error[E0507]" in err and ".safetensors" in err
    status, out, _ = run("export", "n.edge", "--checkpoint", "n.edgeckpt", "-o", "n.safetensors")
    assert status == 0 and "2 of them trained" in out
    arrays = read_safetensors(folder / "n.safetensors")
    np.testing.assert_array_equal(arrays["3.bias"], network()[3].bias.detach().numpy())
    assert run("export", "n.edge", "--checkpoint", "n.edgeckpt", "--model", "m.pt2", "-o", "n.pt2")[0] == 0


@pytest.mark.parametrize(
    "data", [b"", b"\xff" * 8, b"\x02" + bytes(7) + b"[]", b"\x10" + bytes(7) + b'{"a":{"dtype":1}}']
)
def test_damaged_weights_are_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(data)
    with pytest.raises(edgec.UserError, match="E0507"):
        read_safetensors(tmp_path / "w.safetensors")


class WithRest(nn.Module):
    """A norm that is folded, tied weights, a buffer, and a layer that forward never uses; f16 and f64 among them."""

    def __init__(self) -> None:
        super().__init__()
        self.body = network()
        self.first, self.second, self.unused = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(5, 6).double()
        self.second.weight = self.first.weight
        self.register_buffer("table", torch.arange(3.0).half())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(self.body(x))) + self.table.float()


def test_the_whole_state_comes_back_from_a_file_with_open_shapes(run, folder: Path) -> None:
    module = WithRest().eval()
    batch = {"x": {0: torch.export.Dim("n", min=1, max=8)}}
    torch.export.save(torch.export.export(module, (X.repeat(2, 1, 1, 1),), dynamic_shapes=batch), folder / "rest.pt2")
    for originals in ("keep", "drop"):
        assert run("compile", "rest.pt2", "--batch", "3", "--originals", originals, "-o", "rest.edge")[0] == 0
        with edgec.load(folder / "rest.edge", threads=1) as model:
            values = {name: torch.from_numpy(array) for name, array in model.parameters().items()}
        if originals == "keep":
            assert values.keys() == module.state_dict().keys()
            assert all(torch.equal(values[name], tensor) for name, tensor in module.state_dict().items())
            module.load_state_dict(values)
        else:
            assert values.keys() < module.state_dict().keys() and "body.0.0.weight" not in values
