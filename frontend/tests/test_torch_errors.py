"""What users read when a torch model cannot be read, word for word; EDGEC_UPDATE=1 writes it anew."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from edgec.frontend.torch import read_torch
from edgec.graph.errors import UserError

SNAPSHOTS = Path(__file__).with_name("torch_error_snapshots.txt")
X = torch.zeros(2, 3, 8, 8)


class Inner(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.det(x) + torch.linalg.inv(x).sum((2, 3))[:, :, None].squeeze(-1)


class Unknown(nn.Module):
    """Operators without an equivalent, in a layer and beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Inner()])

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks[0](x) + torch.special.i0(x).mean((2, 3)) + torch.rand(3)


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x
        return -x


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * self.calls


class Dropping(nn.Module):
    """Dropout that eval mode does not end."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, 0.5, training=True)


class Cache:
    def __init__(self, keys: Tensor):
        self.keys = keys


class Caching(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Cache]:
        return x * 2, Cache(x)


class Selecting(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[x > 0] * 2


class Cutting(nn.Module):
    def forward(self, x: Tensor, count: Tensor) -> Tensor:
        return x[:, : int(count)]


def dynamic() -> torch.export.ExportedProgram:
    return torch.export.export(nn.ReLU(), (X,), dynamic_shapes=({0: torch.export.Dim("n"), 2: torch.export.Dim("h")},))


def text_file() -> str:
    Path("notes.pt2").write_text("These are notes.\n")
    return "notes.pt2"


def state_file() -> str:
    torch.save(nn.Linear(2, 2).state_dict(), "weights.pt2")
    return "weights.pt2"


CASES: dict[str, Callable[[], object]] = {
    "operators without an equivalent": lambda: read_torch(Unknown(), (X,)),
    "a branch on values": lambda: read_torch(Branching(), (X,)),
    "a buffer that forward changes": lambda: read_torch(Counting(), (X,)),
    "a program in training mode": lambda: read_torch(torch.export.export(nn.BatchNorm2d(3).train(), (X,))),
    "dropout in training mode": lambda: read_torch(torch.export.export(nn.Dropout().train(), (X,))),
    "dropout that is always on": lambda: read_torch(Dropping(), (X,)),
    "an object that is no tensor": lambda: read_torch(Caching(), (X,)),
    "what a mask selects": lambda: read_torch(Selecting(), (X,)),
    "a cut at a value": lambda: read_torch(Cutting(), (X, torch.tensor(1))),
    "an example input on another device": lambda: read_torch(nn.ReLU(), (X.to("meta"),)),
    "no example inputs": lambda: read_torch(nn.ReLU()),
    "one tensor for a tuple": lambda: read_torch(nn.ReLU(), X),
    "example inputs of a wrong shape": lambda: read_torch(nn.Linear(5, 3), (torch.zeros(2, 4),)),
    "weights without values": lambda: read_torch(nn.Linear(5, 3, device="meta"), (torch.zeros(2, 5),)),
    "a dynamic shape without a value": lambda: read_torch(dynamic(), batch=2),
    "a shape for no input": lambda: read_torch(dynamic(), shapes={"picture": (1,)}),
    "a shape that is fixed": lambda: read_torch(nn.ReLU(), (X,), shapes={"input": (1, 3, 4, 4)}),
    "no such file": lambda: read_torch("nowhere.pt2"),
    "not an archive": lambda: read_torch(text_file()),
    "weights instead of a program": lambda: read_torch(state_file()),
}


def snapshots() -> dict[str, str]:
    parts = SNAPSHOTS.read_text().split("== ")[1:] if SNAPSHOTS.exists() else []
    return {name: text.strip() for name, _, text in (part.partition("\n") for part in parts)}


@pytest.mark.parametrize("name", CASES)
def test_what_is_wrong_is_said_well(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        CASES[name]()
    # Lines of this file may move, and torch numbers its symbols as it likes.
    said = re.sub(r"\bs\d+\b", "sN", re.sub(r"\.py:\d+", ".py:N", str(caught.value)))
    assert caught.value.where
    known = snapshots()
    if os.environ.get("EDGEC_UPDATE") == "1":
        known[name] = said
        SNAPSHOTS.write_text("\n\n".join(f"== {case}\n{known[case]}" for case in CASES if case in known) + "\n")
    else:
        assert said == known.get(name), "EDGEC_UPDATE=1 writes the snapshots anew"


def test_no_snapshot_is_left_over() -> None:
    assert set(snapshots()) == set(CASES)
