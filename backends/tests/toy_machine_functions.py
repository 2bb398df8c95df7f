"""The same as `toy_functions`, written for the instructions of the target: what has one of its own is that."""

from __future__ import annotations

import toy_functions

from edgec.backends.base import Target
from edgec.backends.tvm._tvm import PrimFunc
from edgec.backends.tvm.builder import instructions_of


def emit(spec: toy_functions.FunctionSpec, target: Target, symbol: str) -> PrimFunc:
    with instructions_of(target):
        return toy_functions.emit(spec, target, symbol)
