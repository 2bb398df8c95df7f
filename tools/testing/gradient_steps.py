"""One training step of a published model: compiled, and interpreted in double precision with the pieces of another.

The question is whether compiled gradients are those of the model. They are compared with the program interpreted in
float64, which equals torch to 1e-6 (`compiler/tests/test_published_gradients.py`), given the pieces of piecewise
functions that the compiled step took (`kinks.py`). That proves something only if nobody may choose pieces freely, so a
step has to be `honest`: what it feeds to kinks is as exact as in another implementation in f32 (the same program in
numpy, its products by BLAS), and where it took another piece, its error is an ordinary one of that tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from edgec.backends.targets import find_target
from edgec.backends.tvm.backend import TvmBackend
from edgec.compiler.compile import lower_module
from edgec.compiler.passbase import Options
from edgec.compiler.pipeline import transform_module
from edgec.compiler.train import Train
from edgec.graph.interp import run
from edgec.graph.ir import Graph, Module, Role
from edgec.runtime import Model
from edgec.runtime.layout import write_artifact
from edgec.tools.testing.gradient_bar import BAR, gradient_errors
from edgec.tools.testing.kinks import adopt_all, piecewise_readers
from edgec.tools.testing.widen import widened

RATE = 2.0**20  # a step so long that rounding to the parameter's precision hides nothing of its gradient
# In errors of f32 at a tensor, as root mean squares. The largest of millions of errors is some ten of them, most of
# all where channels differ in size.
REACH = 32
# Times the errors of numpy in f32: at any tensor, and in the mean of all. A sum of thousands of products in one chain
# is up to eight times worse than one in BLAS' many.
WORSE, WORSE_IN_THE_MEAN = 10, 2.5


@dataclass(frozen=True)
class Step:
    """The loss, by what all that is updated falls (of parameters their gradients, of running statistics whatever), and
    what piecewise functions were fed, by name of the value.
    """

    loss: float
    gradients: dict[str, np.ndarray]
    fed: dict[str, np.ndarray]


@dataclass(frozen=True)
class Given:
    """A step in float64 that takes the pieces of another one. By name of a value: `errors`, what the other differs by
    (root mean square), and `crossed`, by how much where another piece was adopted.
    """

    step: Step
    errors: dict[str, float]
    crossed: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def crossings(self) -> int:
        return sum(map(len, self.crossed.values()))


class StepPrograms:
    """The train program of a module in f32 and in f64."""

    def __init__(self, module: Module, train: Train):
        self.options = Options(train=train)
        self.module, self._imported = module, widened(module)
        transform_module(module, self.options)
        self.single = module.programs["train"]
        self.readers = piecewise_readers(self.single)

    @cached_property
    def double(self) -> Graph:
        module = self._imported
        transform_module(module, replace(self.options, skip=frozenset({"narrow_doubles"})))
        program = module.programs["train"]
        assert self.readers.keys() == piecewise_readers(program).keys()
        return program

    def compile(self, path: Path) -> None:
        """The step for this machine; what kinks are fed is handed out too, as `kink VALUE`."""
        program = self.single
        fed = {f"kink {value.name}": value for value in program.values() if value.name in self.readers}
        program.outputs.update(fed)
        result = lower_module(self.module, [TvmBackend(find_target("x86"))], self.options)
        for name in fed:
            del program.outputs[name]
        write_artifact(path, result.artifact)

    def compiled_step(self, model: Model, inputs: tuple[np.ndarray, ...], labels: np.ndarray) -> Step:
        """A step of `model`, which `compile` made; its parameters are put back."""
        before = model.parameters()
        loss, outputs = model.session(1).run("train", self._feeds(self.single, inputs, labels, RATE))
        after = model.parameters()
        model.set_parameters({name: before[name] for name in model.trained})
        gradients = {name: (before[name].astype(np.float64) - after[name]) / RATE for name in self._updated()}
        fed = {name: outputs[f"kink {name}"] for name in self.readers}
        return Step(loss, gradients, fed)

    def single_step(self, inputs: tuple[np.ndarray, ...], labels: np.ndarray, **changed: np.ndarray) -> Step:
        """The same in numpy, in f32. `changed` are other values of parameters."""
        fed: dict[str, np.ndarray] = {}

        def keep(name: str, array: np.ndarray) -> None:
            if name in self.readers:
                fed[name] = array.copy()

        return self._interpreted(self.single, self._feeds(self.single, inputs, labels, RATE) | changed, keep, fed)

    def given(self, other: Step, inputs: tuple[np.ndarray, ...], labels: np.ndarray) -> Given:
        """The step in float64, with the pieces of `other`."""
        errors: dict[str, float] = {}
        crossed: dict[str, np.ndarray] = {}

        def adopt(name: str, array: np.ndarray) -> None:
            if name in self.readers:
                differences = np.abs(other.fed[name] - array)
                errors[name] = float(np.sqrt(np.mean(differences**2)))
                # In place: all that reads the value sees its crossing.
                adopted = adopt_all(self.readers[name], array, other.fed[name])
                if adopted.any():
                    crossed[name] = differences[adopted]

        doubles = tuple(x.astype(np.float64) if x.dtype == np.float32 else x for x in inputs)
        # With a rate of 1 the step of a parameter is its gradient.
        step = self._interpreted(self.double, self._feeds(self.double, doubles, labels, 1), adopt, {})
        return Given(step, errors, crossed)

    def _feeds(self, program: Graph, inputs: tuple[np.ndarray, ...], labels: np.ndarray, rate: float) -> dict:
        names = [leaf.name for leaf in program.by_role(Role.INPUT)]
        return dict(zip(names, (*inputs, labels), strict=True)) | {"lr": np.float32(rate)}

    def _updated(self) -> list[str]:
        return [leaf.name for leaf in self.single.updates if leaf.role is Role.PARAM]

    def _interpreted(
        self, program: Graph, feeds: dict, observe: Callable[[str, np.ndarray], None], fed: dict[str, np.ndarray]
    ) -> Step:
        results = run(program, feeds, observe=observe)
        rate = np.float64(feeds["lr"])
        gradients = {
            name: (feeds.get(name, program.leaves[name].data).astype(np.float64) - results.updates[name]) / rate
            for name in self._updated()
        }
        return Step(float(results.outputs["loss"]), gradients, fed)


def check_honest(ours: Given, yardstick: Mapping[str, float]) -> None:
    """What kinks are fed is as exact as f32 allows, crossings too. `yardstick`: errors of another f32 by value."""
    for name, error in ours.errors.items():
        assert error <= WORSE * yardstick[name], f"{name}: off by {error:.1e}, and in numpy by {yardstick[name]:.1e}"
    ratios = [error / yardstick[name] for name, error in ours.errors.items() if yardstick[name]]
    assert not ratios or np.exp(np.mean(np.log(np.maximum(ratios, 1e-3)))) <= WORSE_IN_THE_MEAN, ratios
    for name, differences in ours.crossed.items():
        assert differences.max() <= REACH * yardstick[name], f"{name}: {differences.max():.1e} across a kink"


def check_gradients(
    ours: Mapping[str, np.ndarray], exact: Mapping[str, np.ndarray], yardstick: Mapping[str, float]
) -> list[str]:
    """All within the bar, or, where f32 in numpy misses it too, not much worse than that; returns these.

    `yardstick`: errors of numpy given its own pieces. Some gradients are sums that cancel: those of shifts that the
    next norm takes away vanish altogether, and what is left is rounding in every precision.
    """
    errors = gradient_errors(ours, exact)
    for name, error in errors.items():
        assert error <= max(BAR, WORSE * yardstick[name]), f"{name}: {error:.1e}, and in numpy {yardstick[name]:.1e}"
    return [name for name, error in errors.items() if error > BAR]
