"""The table of what GPUs have kernels for is what the code does."""

from __future__ import annotations

from pathlib import Path

from gpu_ops import table


def test_the_table_is_current() -> None:
    page = Path(__file__).parents[1] / "gpu_ops.md"
    assert page.read_text() == table(), "python device_tests/gpu_ops.py > device_tests/gpu_ops.md"


def test_every_op_has_kernels() -> None:
    assert "Without a lowering: none." in table()
