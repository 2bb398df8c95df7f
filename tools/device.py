"""One run of an artifact on a device, numpy in and numpy out: tensor files there and back around a `Runner`."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edgec.backends.runners.base import Invocation, Runner
from edgec.graph.errors import UserError
from edgec.runtime import RuntimeFailure
from edgec.runtime.tensorfile import read_tensors, write_tensors


def run_on(
    runner: Runner,
    artifact: Path,
    program: str,
    feeds: Mapping[str, object],
    *,
    steps: int = 1,
    threads: int = 1,
    profile: Path | None = None,
    load_checkpoint: Path | None = None,
    save_checkpoint: Path | None = None,
    timeout: float = 600.0,
) -> dict[str, np.ndarray]:
    """Outputs of the last of `steps` steps of a program, and f32 `losses` [steps] where it has a loss.

    feeds: inputs and scalars by name, in the dtypes of the program. An array is one step's, or holds all steps' along
    its first axis ([steps x batch, ...]; a scalar: [steps]).
    timeout: seconds for the run itself. UserError E0608 where it fails, with what the device said as the hint.
    """
    with tempfile.TemporaryDirectory(prefix="edgec-") as folder:
        inputs, outputs = Path(folder) / "in.tensors", Path(folder) / "out.tensors"
        write_tensors(inputs, {name: np.asarray(array) for name, array in feeds.items()})
        runner.run(
            Invocation(
                artifact=Path(artifact),
                program=program,
                inputs=inputs,
                outputs=outputs,
                steps=steps,
                threads=threads,
                profile=profile,
                load_checkpoint=load_checkpoint,
                save_checkpoint=save_checkpoint,
            ),
            timeout=timeout,
        )
        try:
            return read_tensors(outputs)
        except RuntimeFailure as failure:
            raise UserError("E0608", f"no outputs came back from {runner.description}", hint=str(failure)) from failure
