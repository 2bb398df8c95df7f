"""The only place that imports tvm: pins the version and names the few parts of it that code generation uses.

Everything here takes seconds to load, so only `*_code.py` modules and the compile workers may import it; specs and
strategies must not.
"""

from __future__ import annotations

import tvm
from tvm import tirx
from tvm.ir import IRModule
from tvm.script.ir_builder import IRBuilder
from tvm.tirx import PrimFunc
from tvm.tirx.script import builder as T

from edgec.graph.errors import InternalError

VERSION = "0.27.0.post1"
# Code generation leans on details that move between releases; another version must be tried, not assumed.
if tvm.__version__ != VERSION:
    raise InternalError(f"apache-tvm {VERSION} is needed, {tvm.__version__} is installed")

Expr = tvm.ir.Expr

__all__ = ["VERSION", "Expr", "IRBuilder", "IRModule", "PrimFunc", "T", "tirx", "tvm"]
