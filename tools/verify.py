"""An artifact against the model it came from: both run on the same inputs; the largest error of every output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgec.graph.errors import UserError
from edgec.runtime import TensorInfo
from edgec.runtime.dtypes import dtype_name
from edgec.runtime.format import Artifact

# Of errors, relative to an output's largest value, by the coarsest numbers that an artifact computes with.
TOLERANCES = {"bf16": 5e-2, "f16": 1e-2}
TOLERANCE = 1e-4  # of f32


@dataclass(frozen=True)
class Difference:
    """One output. `relative` is the largest error as a part of the reference's largest magnitude.

    `where` is the index of the largest error, None where there is none; `run` the number of the inputs that gave it.
    """

    name: str
    largest_error: float
    largest_magnitude: float
    where: tuple[int, ...] | None = None
    run: int = 0

    @property
    def relative(self) -> float:
        return self.largest_error / self.largest_magnitude if self.largest_magnitude else self.largest_error


def usual_tolerance(artifact: Artifact) -> float:
    """What rounding explains, for the coarsest dtype of a tensor that the artifact names."""
    used = {dtype_name(tensor.data.dtype) for tensor in artifact.tensors}
    used |= {binding.dtype for variant in artifact.variants for p in variant.programs for binding in p.bindings}
    return next((tolerance for name, tolerance in TOLERANCES.items() if name in used), TOLERANCE)


def draw_feeds(inputs: tuple[TensorInfo, ...], seed: int) -> dict[str, np.ndarray]:
    """Standard normal floats; integers within an input's bounds, else 0 and 1."""
    rng = np.random.default_rng(seed)
    feeds = {}
    for info in inputs:
        if info.dtype.kind == "f":
            feeds[info.name] = rng.standard_normal(info.shape).astype(info.dtype)
        else:
            low, high = info.bounds or (0, 1)
            feeds[info.name] = rng.integers(low, high, info.shape, endpoint=True).astype(info.dtype)
    return feeds


def model_feeds(feeds: Mapping[str, np.ndarray], manifest: Mapping) -> dict[str, np.ndarray]:
    """What the model takes where its artifact takes `feeds`: images u8 [N,H,W,C] become normalised [N,C,H,W], and
    inputs that were fixed are there again.
    """
    fixed = manifest.get("provenance", {}).get("values", {})
    given = {name: np.asarray(value) for name, value in fixed.items()} | dict(feeds)
    for name, image in manifest.get("images", {}).items():
        if name in given:
            pixels = given[name].astype(np.float64) / 255
            given[name] = ((pixels - image["mean"]) / image["std"]).transpose(0, 3, 1, 2).astype(np.float32)
    return given


def refuse_other_head(manifest: Mapping, where: object) -> None:
    """UserError E0111 for an artifact with a new head: the model's outputs are those of the old one."""
    if manifest.get("new_head"):
        message = "the artifact has a new head, so that its outputs are not the model's"
        raise UserError("E0111", message, where=str(where), hint="compile without --new-head to compare the rest")


def run_onnxruntime(path: Path, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Outputs by name. UserError E0402 without onnxruntime, E0106 if it cannot read or run the model."""
    try:
        import onnxruntime  # noqa: PLC0415  wanted by this command alone
    except ModuleNotFoundError:
        raise UserError("E0402", "onnxruntime is not installed", hint="pip install onnxruntime") from None
    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        given = dict(feeds)
        for item in session.get_inputs():
            if item.name in given:
                given[item.name] = _as_input(given[item.name], item.type, item.shape)
        return dict(zip(names, session.run(names, given), strict=True))
    except Exception as error:  # onnxruntime's own classes have no common base
        raise UserError("E0106", f"onnxruntime cannot run the model: {error}", where=str(path)) from error


def _as_input(array: np.ndarray, kind: str, shape: Sequence[int | str | None]) -> np.ndarray:
    """A number of a manifest, which has Python's types, in the type and shape that an input has for onnxruntime."""
    if array.dtype.itemsize < 8 or array.size != 1:
        return array
    name = kind.removeprefix("tensor(").removesuffix(")")
    dtype = np.dtype({"float": "float32", "double": "float64"}.get(name, name))
    return np.full(shape, array, dtype) if all(isinstance(extent, int) for extent in shape) else array.astype(dtype)


def compare(outputs: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray]) -> list[Difference]:
    """One row for every output. UserError E0601 for names, E0603 for shapes that do not agree."""
    if outputs.keys() != reference.keys():
        sides = f"the artifact gives {sorted(outputs)}, the model {sorted(reference)}"
        raise UserError("E0601", f"the outputs have other names: {sides}")
    rows = []
    for name, expected in reference.items():
        actual = outputs[name]
        if actual.shape != expected.shape:
            raise UserError("E0603", f"output `{name}` has shape {actual.shape}, the model gives {expected.shape}")
        rows.append(_difference(name, actual.astype(np.float64), expected.astype(np.float64)))
    return rows


def worst_of(runs: Sequence[Sequence[Difference]]) -> list[Difference]:
    """Of several runs, each output's row with the largest relative error; it knows its run."""
    numbered = [[replace(row, run=number) for row in rows] for number, rows in enumerate(runs)]
    return [max(same, key=lambda row: row.relative) for same in zip(*numbered, strict=True)]


def _difference(name: str, actual: np.ndarray, expected: np.ndarray) -> Difference:
    # Equal infinities and NaN in the same place agree; any other pair with one of them is infinitely far apart.
    same = (actual == expected) | (np.isnan(actual) & np.isnan(expected))
    with np.errstate(invalid="ignore"):
        errors = np.where(same, 0.0, np.abs(actual - expected))
    errors = np.where(np.isnan(errors), np.inf, errors)
    finite = np.abs(expected[np.isfinite(expected)])
    largest = float(errors.max(initial=0.0))
    where = tuple(int(i) for i in np.unravel_index(errors.argmax(), errors.shape)) if largest else None
    return Difference(name, largest, float(finite.max(initial=0.0)), where)
