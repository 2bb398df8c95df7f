"""`.pt2` files from anywhere: the same program as the module, and nothing of a file is ever executed."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgec.frontend.torch import export_torch, read_torch, run_torch
from edgec.graph.equal import module_difference
from edgec.graph.errors import UserError
from edgec.graph.interp import run

torch.set_num_threads(1)
X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
RAN: list[str] = []  # what hostile files would call


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.fc, self.tied = nn.Linear(4, 4), nn.Linear(4, 4)
        self.tied.weight = self.fc.weight
        self.register_buffer("mask", torch.arange(4) % 2 == 0)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x)).relu().mean((2, 3))
        return self.tied(self.fc(y)) * self.mask.float() * torch.tensor([1.0, 2.0, 3.0, 4.0])


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture(scope="module")
def saved(net, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("pt2") / "net.pt2"
    torch.export.save(torch.export.export(net, (X,)), path)
    return path


def refused(code: str, path: Path) -> UserError:
    with pytest.raises(UserError) as caught:
        read_torch(path)
    assert caught.value.code == code and str(path) == caught.value.where, caught.value
    assert not RAN
    return caught.value


def changed(
    saved: Path, out: Path, changes: dict[str, Callable[[bytes], bytes] | bytes | None], **options: int
) -> Path:
    """A copy with entries (by the end of their names) replaced, added, or dropped where the change is None."""
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(out, "w", **options) as new:
        done = set()
        for info in old.infolist():
            data = old.read(info)
            for name in (name for name in changes if info.filename.endswith(name)):
                change = changes[name]
                done.add(name)
                data = change(data) if callable(change) else change
            if data is not None:
                new.writestr(info.filename, data)
        for name in changes.keys() - done:
            new.writestr(f"net/{name}", changes[name])
    return out


def edited(edit: Callable[[dict], None]) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        value = json.loads(data)
        edit(value)
        return json.dumps(value).encode()

    return change


def hostile_call() -> str:
    RAN.append("called")
    return ""


class Hostile:
    def __reduce__(self) -> tuple:
        return hostile_call, ()


def hostile_tensor() -> bytes:
    buffer = io.BytesIO()
    torch.save({"x": Hostile()}, buffer)
    return buffer.getvalue()


def nodes(program: dict) -> list[dict]:
    return program["graph_module"]["graph"]["nodes"]


# -- what is read ---------------------------------------------------------------------------------------------------


def test_a_file_is_the_same_program_as_its_module(net, saved) -> None:
    ours, theirs = read_torch(saved), read_torch(net, (X,))
    assert module_difference(ours, theirs) is None
    assert [n.source for n in ours.programs["infer"].nodes] == [n.source for n in theirs.programs["infer"].nodes]
    result = run(ours.programs["infer"], {"x": X.numpy()}).outputs["output"]
    np.testing.assert_allclose(result, net(X).detach().numpy(), rtol=1e-5, atol=1e-6)


def test_weights_are_mapped_and_no_write_reaches_the_file(saved) -> None:
    before = saved.read_bytes()
    data = read_torch(saved).programs["infer"].leaves["fc.weight"].data
    data[...] = 0
    assert saved.read_bytes() == before


def test_other_dtypes_and_views_come_back(tmp_path) -> None:
    class Views(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            base = torch.randn(4, 6)
            self.register_buffer("transposed_", base.t())
            self.register_buffer("half_", base[:, ::2])
            self.register_buffer("double_", base.double())
            self.register_buffer("bf16_", base.bfloat16())
            self.register_buffer("empty_", torch.zeros(0, 3))

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            y = x.sum()
            return (
                y * self.transposed_,
                y * self.half_,
                y + self.double_.float(),
                y + self.bf16_.float(),
                self.empty_ * y,
            )

    module = Views().eval()
    torch.export.save(torch.export.export(module, (X,)), tmp_path / "v.pt2")
    outputs = run(read_torch(tmp_path / "v.pt2").programs["infer"], {"x": X.numpy()}).outputs
    for ours, theirs in zip(outputs.values(), module(X), strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-4, atol=1e-5)


def test_a_dynamic_file_takes_its_shape(net, tmp_path) -> None:
    batch = torch.export.Dim("batch", min=1, max=64)
    exported = torch.export.export(net, (X,), dynamic_shapes={"x": {0: batch}})
    torch.export.save(exported, tmp_path / "d.pt2")
    graph = read_torch(tmp_path / "d.pt2", batch=5).programs["infer"]
    assert graph.leaves["x"].type.shape == (5, 3, 8, 8) and graph.outputs["output"].type.shape == (5, 4)
    assert refused("E0104", tmp_path / "d.pt2").hint == "--shape x=1,3,8,8"


def test_trained_values_go_back_into_a_file(net, saved, tmp_path) -> None:
    before, path = saved.read_bytes(), tmp_path / "tuned.pt2"
    new = np.arange(16, dtype=np.float32).reshape(4, 4)
    export_torch(saved, {"fc.weight": new}, path)
    assert saved.read_bytes() == before
    twin = Net().eval()
    twin.load_state_dict(net.state_dict())
    with torch.no_grad():
        twin.fc.weight.copy_(torch.from_numpy(new))
        expected = twin(X).numpy()
    np.testing.assert_allclose(run_torch(path, {"x": X.numpy()})["output"], expected, rtol=1e-5, atol=1e-5)
    assert module_difference(read_torch(path), read_torch(twin, (X,))) is None
    for values, code in (({"none": new}, "E0601"), ({"fc.weight": new[0]}, "E0603")):
        with pytest.raises(UserError) as caught:
            export_torch(saved, values, tmp_path / "never.pt2")
        assert caught.value.code == code and sorted(tmp_path.iterdir()) == [path]
    with pytest.raises(UserError) as caught:
        export_torch(saved, {}, tmp_path / "none" / "m.pt2")
    assert caught.value.code == "E0505"


def test_torch_runs_a_file(net, saved) -> None:
    with pytest.raises(UserError) as caught:
        run_torch(saved, {})
    assert caught.value.code == "E0601"
    with pytest.raises(UserError) as caught:
        run_torch(saved, {"x": X.numpy()[:, :2]})
    assert caught.value.code == "E0106"


# -- what is not ----------------------------------------------------------------------------------------------------


def test_files_that_are_none(tmp_path) -> None:
    refused("E0106", tmp_path / "nowhere.pt2")
    refused("E0106", tmp_path)
    (tmp_path / "text.pt2").write_text("no archive")
    refused("E0101", tmp_path / "text.pt2")
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "weights.pt2")
    assert "torch.export" in refused("E0101", tmp_path / "weights.pt2").hint


def test_sample_inputs_are_never_opened(saved, tmp_path) -> None:
    """torch.export.load would unpickle them: here they may be anything."""
    path = changed(saved, tmp_path / "m.pt2", {"sample_inputs/model.pt": hostile_tensor()})
    assert read_torch(path) and not RAN
    with pytest.raises(Exception, match="."):  # noqa: B017  torch's own way, whatever comes of it
        torch.export.load(path).module()(1, 2, 3)
    assert RAN, "the file is not hostile, so this test would show nothing"
    RAN.clear()


def test_pickled_tensors_are_refused(saved, tmp_path) -> None:
    def pickled(config: dict) -> None:
        config["config"]["fc.bias"] |= {"use_pickle": True, "tensor_meta": None, "path_name": "weight_0"}

    changes = {"model_weights_config.json": edited(pickled), "weights/weight_0": hostile_tensor()}
    assert "`fc.bias`" in refused("E0102", changed(saved, tmp_path / "m.pt2", changes)).message

    def custom(config: dict) -> None:
        config["config"]["thing"] = {"path_name": "opaque_obj_0", "use_pickle": True, "is_param": False}

    changes = {"model_constants_config.json": edited(custom), "data/constants/opaque_obj_0": pickle.dumps(Hostile())}
    assert "`thing`" in refused("E0102", changed(saved, tmp_path / "n.pt2", changes)).message


def test_guards_are_not_compiled(saved, tmp_path) -> None:
    def guard(program: dict) -> None:
        program["guards_code"] = ["__import__('sys').exit(3)"]

    assert read_torch(changed(saved, tmp_path / "m.pt2", {"models/model.json": edited(guard)}))


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "torch.load",
        "torch.ops.aten.from_file.default",
        "_operator.methodcaller",
        "torch.hub.load",
        "#a:b",
        3,
    ]
    + [
        "torch.ops.aten.add.__class__.x",
        "torch.ops.prim.device.default",
        "math.__loader__",
        "torch.classes.load_library",
    ],
)
def test_calls_of_other_things_are_refused(saved, tmp_path, target: object) -> None:
    def call(program: dict) -> None:
        nodes(program)[0]["target"] = target

    message = refused("E0102", changed(saved, tmp_path / "m.pt2", {"models/model.json": edited(call)})).message
    assert f"`{target}`" in message


@pytest.mark.parametrize(
    "text",
    ["__import__('os').system('true')", "s0.__class__", "9**9**9", "[1]", "lambda: 1", "open('x')", "s0" * 300, 1]
    + ["Symbol('__import__(1)')", "Symbol('s0', x=y)", "Symbol('s0').func", "Pow(Integer(9), Integer(9))"],
)
def test_expressions_are_numbers_symbols_and_arithmetic(saved, tmp_path, text: object) -> None:
    def expression(program: dict) -> None:
        values = program["graph_module"]["graph"]["tensor_values"]
        next(iter(values.values()))["sizes"][0] = {"as_expr": {"expr_str": text, "hint": None}}

    assert (
        "expression"
        in refused("E0102", changed(saved, tmp_path / "m.pt2", {"models/model.json": edited(expression)})).message
    )


@pytest.mark.parametrize("kind", ["collections.namedtuple", "builtins.object", "enum.Enum"])
def test_tree_specifications_name_no_classes(saved, tmp_path, kind: str) -> None:
    def tree(program: dict) -> None:
        signature = program["graph_module"]["module_call_graph"][0]["signature"]
        spec = json.loads(signature["in_spec"])
        spec[1]["type"] = kind
        signature["in_spec"] = json.dumps(spec)

    assert kind in refused("E0102", changed(saved, tmp_path / "m.pt2", {"models/model.json": edited(tree)})).message


def test_archives_that_are_not_of_torchs_form(saved, tmp_path) -> None:
    def make(name: str, changes: dict, **options: int) -> Path:
        return changed(saved, tmp_path / name, changes, **options)

    refused("E0102", make("a.pt2", {}, compression=zipfile.ZIP_DEFLATED))
    refused("E0102", make("b.pt2", {"weights/weight_1": None}))
    refused("E0102", make("c.pt2", {"weights/weight_0": b"short"}))
    refused("E0102", make("d.pt2", {"models/model.json": b"{"}))
    refused("E0102", make("e.pt2", {"models/model.json": b"[]"}))
    refused("E0102", make("f.pt2", {"models/model.json": b"{}"}))
    refused("E0102", make("g.pt2", {"models/model.json": b"[" * 200_000}))
    refused("E0102", make("h.pt2", {"byteorder": b"big"}))
    refused("E0101", make("i.pt2", {"models/model.json": None}))
    with zipfile.ZipFile(make("j.pt2", {}), "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("net/models/model.json", b"{}")
    refused("E0102", tmp_path / "j.pt2")


@pytest.mark.parametrize("key", ["sizes", "strides"])
@pytest.mark.parametrize("number", [-1, 2**20, 2**60, "4", None])
def test_tensors_lie_inside_their_entries(saved, tmp_path, key: str, number: object) -> None:
    def shape(config: dict) -> None:
        config["config"]["conv.weight"]["tensor_meta"][key][0] = {"as_int": number}

    refused("E0102", changed(saved, tmp_path / "m.pt2", {"model_weights_config.json": edited(shape)}))


def test_random_damage_is_an_error_of_the_user_or_harmless(saved, tmp_path) -> None:
    """Bytes of the archive, and values of its JSON: `UserError` or a module, nothing else."""
    rng = np.random.default_rng(0)
    whole, path = saved.read_bytes(), tmp_path / "m.pt2"
    for _ in range(40):
        data = bytearray(whole)
        for at in rng.integers(0, len(data), 1 + rng.integers(0, 8)):
            data[at] = rng.integers(0, 256)
        path.write_bytes(data[: len(data) - rng.choice([0, 0, 10, 1000])])
        survive(path)
    with zipfile.ZipFile(saved) as archive:
        text = archive.read("net/models/model.json").decode()
    values = ['""', "null", "-1", "[]", "{}", "true", '"x"', "99999999999", "1.5"]
    for _ in range(40):
        parts = text.split(": ")
        at = int(rng.integers(1, len(parts)))
        head, comma, tail = parts[at].partition(",")
        parts[at] = f"{values[rng.integers(len(values))]}{comma}{tail}" if comma and head[:1] not in "[{" else parts[at]
        survive(changed(saved, path, {"models/model.json": ": ".join(parts).encode()}))


def survive(path: Path) -> None:
    try:
        read_torch(path)
    except UserError as error:
        assert error.code in ("E0101", "E0102", "E0103", "E0104", "E0105", "E0106", "E0108", "E0110", "E0201")
    assert not RAN
