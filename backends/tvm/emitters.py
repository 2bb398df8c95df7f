"""Spec class -> function that writes its kernel. Loads tvm: only compile workers and tests import this module."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from edgec.backends.base import KernelSpec, Target
from edgec.backends.tvm._tvm import PrimFunc

# Spec class: emitter(spec, target) -> PrimFunc. One line per kind of kernel.
EMITTERS: Mapping[type, Callable[..., PrimFunc]] = {}


def emit(spec: KernelSpec, target: Target, symbol: str) -> PrimFunc:
    """The kernel of a spec as a TVM function that is exported as `symbol`."""
    return EMITTERS[type(spec)](spec, target).with_attr("global_symbol", symbol)
