"""Checks a pass before and after in the text form, and that programs mean the same."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgec.compiler.passbase import Options
from edgec.graph.equal import module_difference
from edgec.graph.interp import run
from edgec.graph.ir import Module
from edgec.graph.parse import parse_module
from edgec.graph.text import data_by_hash, print_module
from edgec.graph.verify import verify_module
from edgec.tools.testing.programs import feeds, initialise

ModulePass = Callable[[Module, Options], bool]

UNTRAINED = Options()


def check_pass(run_pass: ModulePass, before: str, after: str, options: Options = UNTRAINED, rtol: float = 1e-5) -> None:
    """`check_becomes`; besides, a second run finds nothing to do, and the programs mean what they meant."""
    original, module = check_becomes(run_pass, before, after, options)
    assert not run_pass(module.clone(), options), "a second run of the pass changes something again"
    check_same_meaning(original, module, rtol)


def check_becomes(run_pass: ModulePass, before: str, after: str, options: Options) -> tuple[Module, Module]:
    """Assert that the pass turns `before` into `after` and says whether that is a change. The module before and after.

    Params without data are drawn, the same on both sides. The result must verify and be its own text form.
    """
    module, expected = initialise(parse_module(before)), initialise(parse_module(after))
    original = module.clone()
    changed = run_pass(module, options)
    difference = module_difference(module, expected)
    assert difference is None, f"{difference}\n\n{print_module(module)}"
    assert changed == (module_difference(original, module) is not None)
    verify_module(module)
    reread = parse_module(print_module(module), data_by_hash(module))
    assert module_difference(module, reread) is None
    return original, module


def check_same_meaning(original: Module, module: Module, rtol: float = 1e-5) -> None:
    """Programs that both modules have give the same outputs and updates for the same feeds."""
    for name in original.programs.keys() & module.programs.keys():
        graph, twin = original.programs[name], module.programs[name]
        given = feeds(graph)
        expected = run(graph, given)
        got = run(twin, {key: array for key, array in given.items() if key in twin.leaves})
        for kind in ("outputs", "updates"):
            left, right = getattr(expected, kind), getattr(got, kind)
            for key in left.keys() & right.keys():
                np.testing.assert_allclose(right[key], left[key], rtol=rtol, atol=rtol, err_msg=f"{name}: {key}")
