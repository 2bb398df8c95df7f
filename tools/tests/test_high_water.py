"""Planned, allocated and measured bytes of training agree within 5 %, in a process that loads the runtime alone."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import edgec
from edgec.runtime.layout import read_artifact
from edgec.tools.bench.high_water import high_water


def large_activations() -> nn.Module:
    layers = nn.Conv2d(3, 32, 3, padding=1), nn.Hardswish(), nn.Conv2d(32, 32, 1), nn.Hardswish(), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(32 * 64 * 64, 10))


def large_states() -> nn.Module:
    """So little beside them that copying them out of the file decides."""
    return nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(3 * 8 * 8, 32768), nn.Linear(32768, 4))


@pytest.mark.parametrize("make", [large_activations, large_states])
def test_a_process_takes_what_the_plan_says(make: Callable[[], nn.Module], tmp_path: Path) -> None:
    """More than 40 MB of arena, states and trained parameters."""
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    artifact = tmp_path / "m.edge"
    train = edgec.Train(batch=16, momentum=0.9)
    report = edgec.compile(make(), example_inputs=(x,), out=artifact, train=train)
    figures = report.programs["train"]
    (variant,) = read_artifact(artifact).manifest["variants"]
    planned = figures.arena_bytes + variant["trained_bytes"] + variant["state_bytes"]
    assert figures.state_bytes <= variant["state_bytes"] <= 1.01 * figures.state_bytes
    measured = high_water({"kind": "edgec", "artifact": str(artifact), "steps": 2})
    assert 0.95 * planned < measured < 1.05 * planned, (planned, measured)
    assert planned > 40e6, "too small to be seen beside what Python itself does"
