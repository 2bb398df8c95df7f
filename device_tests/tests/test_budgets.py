"""Sizes may not grow by more than 1 % unseen. Approve growth with EDGEC_UPDATE=1, and defend it in the diff."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from budgets import CASES, FILE, TARGETS, grown, model_figures, runtime_figures
from cases.models import ModelCase


def hold(key: str, figures: dict[str, int]) -> None:
    budgets = json.loads(FILE.read_text()) if FILE.exists() else {}
    if os.environ.get("EDGEC_UPDATE") == "1":
        FILE.write_text(json.dumps(budgets | {key: figures}, indent=2, sort_keys=True) + "\n")
        return
    assert key in budgets, f"{key} has no budget: EDGEC_UPDATE=1"
    assert figures.keys() == budgets[key].keys()
    assert grown(figures, budgets[key]) == {}, "approve it with EDGEC_UPDATE=1"


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("target", TARGETS)
def test_model(case: ModelCase, target: str) -> None:
    hold(f"{case} on {target}", model_figures(case, target))


def test_runtime(tmp_path: Path) -> None:
    hold("runtime on aarch64", runtime_figures(tmp_path, "-DEDGEC_DEVICES=0"))


def test_runtime_for_gpus(tmp_path: Path) -> None:
    hold("runtime with GPUs on aarch64", runtime_figures(tmp_path))


def test_growth_is_seen() -> None:
    approved = {"bytes": 1000, "calls": 10}
    assert grown({"bytes": 1010, "calls": 10}, approved) == {}
    assert grown({"bytes": 1011, "calls": 11, "ops": 1}, approved) == {
        "bytes": (1000, 1011),
        "calls": (10, 11),
        "ops": (None, 1),
    }
