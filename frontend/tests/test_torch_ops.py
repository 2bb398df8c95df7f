"""Every converter of the torch frontend against torch, through the reference interpreter."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from edgec.frontend.torch.call import Program
from edgec.frontend.torch.export import export_module
from edgec.frontend.torch.importer import Importer
from edgec.frontend.torch.ops import CONVERTERS
from edgec.frontend.torch.program import decompose, read_program
from edgec.graph.ir import Module
from edgec.graph.verify import verify_module
from edgec.tools.testing.torch_import import Together, expected, interpreted
from edgec.tools.testing.torch_layer_cases import (
    COMPLEX,
    INDEXING,
    LAYERS,
    NORMALISATIONS,
    RECURRENT,
    REDUCTIONS,
    RESAMPLING,
)
from edgec.tools.testing.torch_op_cases import ELEMENTWISE, LOGIC, MATH, MOVEMENTS

torch.set_num_threads(1)

FAMILIES = {
    "elementwise": ELEMENTWISE,
    "math": MATH,
    "logic": LOGIC,
    "movement": MOVEMENTS,
    "layers": LAYERS,
    "normalisations": NORMALISATIONS,
    "indexing": INDEXING,
    "reductions": REDUCTIONS,
    "resampling": RESAMPLING,
    "recurrent": RECURRENT,
    "complex": COMPLEX,
}


# What only the core operators of torch have.
CORE = {
    name: case
    for name, case in {**ELEMENTWISE, **MATH, **REDUCTIONS, **NORMALISATIONS}.items()
    if name in ("detached", "log_softmax", "softmax", "max_pool2d", "adaptive_avg_even", "layer_norm")
}


@functools.cache
def program_of(family: str) -> Program:
    """All cases of a family as one program: exporting is what takes the time."""
    module = Together(FAMILIES[family])
    return read_program(export_module(module, (module.arguments(),)), CONVERTERS, family)


@functools.cache
def results(family: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """What the interpreter computes, and what torch does."""
    module, graph = Together(FAMILIES[family]).eval(), Importer(program_of(family)).run()
    verify_module(Module({"infer": graph}))
    arguments = (module.arguments(),)
    return interpreted(graph, arguments), expected(module, arguments)


@pytest.mark.parametrize(("family", "case"), [(family, case) for family, cases in FAMILIES.items() for case in cases])
def test_a_converter_against_torch(family: str, case: str) -> None:
    ours, torchs = results(family)
    names = [name for name in torchs if name == case or name.startswith(f"{case}.")]
    assert names and [name for name in ours if name == case or name.startswith(f"{case}.")] == names
    for name in names:
        assert torchs[name].size <= 2 or len(np.unique(torchs[name])) > 1, "shows nothing"
        assert ours[name].dtype == torchs[name].dtype and ours[name].shape == torchs[name].shape
        np.testing.assert_allclose(ours[name], torchs[name], rtol=2e-5, atol=3e-6)


def test_every_converter_has_a_case() -> None:
    """As edgec decomposes programs, or as a user's own `run_decompositions` leaves them."""
    seen = {"aten.dropout.default", "aten.feature_dropout.default"}  # nothing in eval mode, refused in training mode
    seen |= {call.op for family in FAMILIES for call in program_of(family).calls}
    layers = Together({**LAYERS, **CORE})
    exported = decompose(export_module(layers, (layers.arguments(),)), ())
    seen |= {call.op for call in read_program(exported, CONVERTERS, "").calls}
    assert set(CONVERTERS) - seen == set()
