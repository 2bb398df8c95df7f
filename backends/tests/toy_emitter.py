"""Kernels that behave well or badly on demand, for tests of the build. Loads tvm."""

from __future__ import annotations

import os
import time
from pathlib import Path

from toys import FILLED

from edgec.backends.base import KernelSpec, Target
from edgec.backends.tvm._tvm import PrimFunc, T
from edgec.backends.tvm.builder import Pointer, build_kernel, constant, serial


def emit(spec: KernelSpec, target: Target, symbol: str) -> PrimFunc:
    lanes = target.lanes

    def scale(x: Pointer, y: Pointer, lo, hi) -> None:
        """Task t: y[t * lanes : ] = factor * x[t * lanes : ] + x[t * lanes : ]."""
        with serial(lo, hi) as task:
            vector = x.load(task * lanes, lanes)
            y.store(task * lanes, vector * constant(spec.factor, lanes) + vector)

    def call_libm(x: Pointer, y: Pointer, lo, hi) -> None:
        with serial(lo, hi) as task:
            y.store(task, T.exp(x.load(task)))

    def fill(x: Pointer, y: Pointer, lo, hi) -> None:
        """Constant zeros, one behind the other: LLVM makes one call of memset of them."""
        with serial(lo, hi) as task:
            for i in range(FILLED):
                y.store(task + i, constant(0.0))

    def copy(x: Pointer, y: Pointer, lo, hi) -> None:
        """By the library's function, whose name objects use for the kernel's own."""
        with serial(lo, hi) as task:
            y.store(task, T.call_extern("float32", "memcpy", x.load(task), lo, hi))

    match spec.behaviour:
        case "abort":
            os.write(1, b"about to abort\n")
            os.abort()
        case "hang":
            if "EDGEC_TEST_PID" in os.environ:
                Path(os.environ["EDGEC_TEST_PID"]).write_text(str(os.getpid()))
            time.sleep(600)
        case "abort after hang":
            while not Path(os.environ["EDGEC_TEST_PID"]).exists():
                time.sleep(0.05)
            os.abort()
        case "raise":
            raise ValueError("no such tile")
        case "fill":
            return build_kernel(spec.arguments, fill, symbol)
        case "copy":
            return build_kernel(spec.arguments, copy, symbol)
        case "libm":
            return build_kernel(spec.arguments, call_libm, symbol)
    return build_kernel(spec.arguments, scale, symbol)
