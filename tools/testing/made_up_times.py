"""Benches without clocks: what contenders are asked to do, and times that are made up for them."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType

import pytest

from edgec.tools.bench.compare import Timing


def make_up_times(
    patch: pytest.MonkeyPatch, module: ModuleType, milliseconds: Mapping[str, float | None]
) -> dict[str, dict]:
    """From now on `module` compares nobody. The dictionary fills with the contenders it asks for, by name; those
    without a time cannot be measured.
    """
    asked: dict[str, dict] = {}

    def compare(contenders: dict[str, dict], *, rounds: int) -> dict[str, Timing]:
        asked.update(contenders)
        times = {name: milliseconds.get(name) for name in contenders}
        return {n: Timing(t, 0.1, 10, "", t, t) if t else Timing(error="no compiler") for n, t in times.items()}

    patch.setattr(module, "compare", compare)
    return asked
