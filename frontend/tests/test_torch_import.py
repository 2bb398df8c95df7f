"""What the torch frontend keeps of a module (names, roles, sources, modes), and what it says of one it cannot read."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgec.frontend.torch import is_torch, read_torch
from edgec.graph.errors import UserError
from edgec.graph.interp import run
from edgec.graph.ir import Graph, Role
from edgec.graph.ops.batch_norm import BatchNorm

torch.set_num_threads(1)
X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Everything that has a name: parameters, batch norm statistics, a buffer, a tied and a frozen weight."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4, bias=False)
        self.b.weight = self.a.weight
        self.register_buffer("scale", torch.tensor([1.0, 2.0, 3.0, 4.0]))
        self.drop = nn.Dropout()

    def forward(self, image: Tensor, bias: Tensor | None = None) -> dict[str, object]:
        x = self.features(image).mean((2, 3)) * self.scale
        y = self.b(self.drop(self.a(x)))
        return {"logits": y if bias is None else y + bias, "parts": [x, None]}


def program(module: nn.Module, *inputs: object, **options: object) -> Graph:
    return read_torch(module, inputs, **options).programs["infer"]


def refused(code: str, source: object, example_inputs: object = None, **options: object) -> UserError:
    with pytest.raises(UserError) as caught:
        read_torch(source, example_inputs, **options)
    assert caught.value.code == code, caught.value
    return caught.value


# -- what is kept ---------------------------------------------------------------------------------------------------


def test_names_and_roles_are_those_of_the_module() -> None:
    graph = program(Net(), X, torch.ones(4))
    names = {role: [leaf.name for leaf in graph.by_role(role)] for role in Role}
    assert names[Role.INPUT] == ["image", "bias"]
    norm = ["features.1.weight", "features.1.bias", "features.1.running_mean", "features.1.running_var"]
    assert names[Role.PARAM] == ["features.0.weight", *norm, "a.weight", "a.bias"]
    assert "scale" in names[Role.CONSTANT], "a buffer is not trained"
    assert list(graph.outputs) == ["logits", "parts.0"]
    tied = graph.leaves["a.weight"]
    assert len(tied.uses) == 2


def test_parameters_share_the_data_of_the_module() -> None:
    module = Net()
    graph = program(module, X)
    assert np.shares_memory(graph.leaves["a.bias"].data, module.a.bias.detach().numpy())
    assert {name for name, leaf in graph.leaves.items() if leaf.role is Role.PARAM} <= set(module.state_dict())


def test_every_node_says_where_it_comes_from() -> None:
    graph = program(Net(), X)
    line = next(n for n, text in enumerate(Path(__file__).read_text().split("\n"), 1) if ".mean((2, 3))" in text)
    sources = {node.op.name: node.source for node in graph.nodes}
    assert sources["conv2d"] == f"features.0 (test_torch_import.py:{line})"
    assert sources["reduce_mean"] == f"test_torch_import.py:{line}"
    assert all(node.source for node in graph.nodes)


def test_example_inputs_by_name() -> None:
    graph = read_torch(Net(), {"image": X, "bias": torch.ones(4)}).programs["infer"]
    assert [leaf.name for leaf in graph.by_role(Role.INPUT)] == ["image", "bias"]


@pytest.mark.parametrize(
    ("forward", "names"),
    [
        (lambda x: x + 1, ["output"]),
        (lambda x: (x + 1, x + 2), ["output.0", "output.1"]),
        (lambda x: {"a": [x + 1, {"b": x + 2}]}, ["a.0", "a.1.b"]),
        (lambda x: (x + 1, None, 3), ["output.0"]),
        (lambda x: x, ["output"]),
    ],
)
def test_outputs_are_named_by_the_way_to_them(forward: object, names: list[str]) -> None:
    assert list(program(Function(forward), X).outputs) == names


class Function(nn.Module):
    def __init__(self, function: object):
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> object:
        return self.function(x)


def test_a_module_in_training_mode_is_read_in_eval_mode_and_put_back() -> None:
    module = Net().train()
    module.features[1].eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    graph = program(module, X)
    assert any(isinstance(node.op, BatchNorm) for node in graph.nodes)
    assert module.training and module.drop.training and not module.features[1].training
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_parameters_without_gradient_are_constants() -> None:
    module = Net()
    module.features.requires_grad_(False)
    graph = program(module, X)
    assert graph.leaves["features.0.weight"].role is Role.CONSTANT
    assert graph.leaves["a.weight"].role is Role.PARAM
    module.requires_grad_(False)
    everything = program(module, X)
    assert everything.leaves["a.weight"].role is Role.PARAM, "without any gradient the flag says nothing"


def test_an_argument_that_nothing_reads_stays_an_input() -> None:
    class Idle(nn.Module):
        def forward(self, x: Tensor, unused: Tensor) -> Tensor:
            return x * 2

    assert [leaf.name for leaf in program(Idle(), X, X).by_role(Role.INPUT)] == ["x", "unused"]


def test_what_no_output_reads_need_not_be_known() -> None:
    def forward(x: Tensor) -> Tensor:
        torch.fft.fft(x)
        return x + 1

    assert [node.op.name for node in program(Function(forward), X).nodes] == ["add"]


def test_an_exported_program_is_read_too() -> None:
    exported = torch.export.export(Net().eval(), (X,))
    assert is_torch(exported) and is_torch(Net()) and is_torch("a/m.pt2") and not is_torch("m.onnx")
    assert list(read_torch(exported).programs["infer"].outputs) == ["logits", "parts.0"]


# -- dynamic shapes -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dynamic() -> torch.export.ExportedProgram:
    batch, side = torch.export.Dim("batch", min=1, max=64), torch.export.Dim("side", min=4, max=64)
    shapes = {"image": {0: batch, 2: side, 3: side}}
    return torch.export.export(Net().eval(), (X,), {}, dynamic_shapes=shapes)


def test_dynamic_dimensions_are_bound(dynamic) -> None:
    graph = read_torch(dynamic, shapes={"image": (1, 3, 6, 6)}).programs["infer"]
    assert graph.leaves["image"].type.shape == (1, 3, 6, 6)
    assert "features.0.weight" in graph.leaves
    x = X[:1, :, :6, :6].contiguous()
    ours = run(graph, {"image": x.numpy()}).outputs["logits"]
    np.testing.assert_allclose(ours, dynamic.module()(x)["logits"].detach().numpy(), rtol=1e-5, atol=1e-6)


def test_shapes_that_are_open_or_do_not_fit(dynamic) -> None:
    error = refused("E0104", dynamic, batch=2)
    assert "image" in error.message and error.hint.startswith("--shape image=2,3,")
    assert "`nothing`" in refused("E0105", dynamic, shapes={"nothing": (1,)}).message
    assert "[1,4,6,6]" in refused("E0105", dynamic, shapes={"image": (1, 4, 6, 6)}).message
    refused("E0105", dynamic, shapes={"image": (1, 3, 0, 6)})
    refused("E0105", dynamic, shapes={"image": (1, 3, 6, 7)})
    refused("E0105", dynamic, shapes={"image": (100, 3, 6, 6)})
    assert "example inputs" in refused("E0105", Net(), (X,), shapes={"image": (1, 3, 8, 8)}).hint
    refused("E0105", Net(), (X,), batch=3)


# -- what cannot be imported ----------------------------------------------------------------------------------------


def test_everything_that_cannot_be_imported_is_listed_at_once() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Function(lambda x: torch.linalg.det(x))

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x) + torch.special.i0(x).sum((2, 3))

    error = refused("E0103", Odd(), (X,))
    lines = error.message.splitlines()
    assert lines[0] == "the model has 2 operations that cannot be imported:"
    assert "`inner (test_torch_import.py:" in lines[1] and "aten._linalg_det.default" in lines[1]
    assert "aten.i0.default" in lines[2] and error.where == "Odd"


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (Function(lambda x: F.dropout(x, 0.5, True)), "random numbers|dropout in training mode"),
        (Function(lambda x: x + torch.rand(3, 8, 8)), "random numbers at run time"),
        (nn.BatchNorm2d(3, track_running_stats=False), "statistics of the batch"),
        (Function(lambda x: F.interpolate(x.reshape(1, 1, 1, -1).repeat(1, 1, 1, 2**17), (1, 5))), "a table of"),
        (Function(lambda x: torch.fft.fft(x).exp().real), "of complex tensors"),
    ],
)
def test_why_an_operation_cannot_be_imported(module: nn.Module, reason: str) -> None:
    assert re.search(reason, refused("E0103", module, (X,)).message)


def test_a_program_exported_in_training_mode_is_refused() -> None:
    error = refused("E0103", torch.export.export(nn.BatchNorm2d(3).train(), (X,)))
    assert "buffer `running_mean`" in error.message and "module.eval()" in error.hint


def test_a_module_that_changes_its_buffers_is_refused() -> None:
    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            self.seen.add_(1)
            return x * self.seen

    assert "buffer `seen`" in refused("E0103", Counter(), (X,)).message
    assert "in place" in refused("E0103", Function(lambda x: x.add_(1)), (X,)).message


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x + 1 if x.sum() > 0 else x - 1,
        lambda x: x[:, :, : int(x.max().item())],
        lambda x: x.reshape(-1)[: int(x.argmax())] * 2,
    ],
)
def test_decisions_that_depend_on_data_are_refused(function: object) -> None:
    error = refused("E0108", Function(function), (X,))
    assert "values of a tensor" in error.message and error.where.startswith("test_torch_import.py:")


def test_shapes_that_depend_on_data_are_refused() -> None:
    error = refused("E0103", Function(lambda x: x.nonzero()), (X,))
    assert "depends on data" in error.message


@pytest.mark.parametrize(
    "example_inputs",
    [None, X, 3, (), (X, X, X, X), (torch.zeros(2, 5, 8, 8),), (X.long(),), {"picture": X}, ("a",)],
)
def test_example_inputs_that_do_not_fit(example_inputs: object) -> None:
    error = refused("E0109", Net(), example_inputs)
    assert error.hint and error.where


def test_a_mistake_in_the_module_is_said_with_its_place() -> None:
    error = refused("E0109", Function(lambda x: x @ torch.ones(5, 5)), (X,))
    assert error.where.startswith("test_torch_import.py:")


def test_tensors_elsewhere_are_refused() -> None:
    error = refused("E0110", nn.Linear(3, 3, device="meta"), (torch.zeros(1, 3),))
    assert "`weight` on meta" in error.message and "load the weights" in error.hint
    assert "example input 0" in refused("E0110", nn.Linear(3, 3), (torch.zeros(1, 3, device="meta"),)).message


def test_names_that_two_things_have() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.x = nn.Parameter(torch.ones(3))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.x

    assert "`x`" in refused("E0103", Twice(), (torch.ones(3),)).message


def test_dtypes_that_the_graph_lacks() -> None:
    refused("E0103", Function(lambda x: x.to(torch.int16) + 1), (X,))
    assert "complex" in refused("E0103", Function(lambda x: torch.complex(x, x)), (X,)).message
