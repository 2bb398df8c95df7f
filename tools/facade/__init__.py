"""edgec: compiles a model, and its training step, into one file that a tiny runtime runs.

Lazy: `import edgec.runtime` on a device must load neither the compiler nor its libraries.
"""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

_EXPORTS = {
    "compile": "edgec.tools.api",
    "search": "edgec.tools.search.api",
    "load": "edgec.runtime",
    "Train": "edgec.compiler.train",
    "ParameterGroup": "edgec.compiler.parameter_groups",
    "Scheme": "edgec.compiler.sparse.scheme",
    "WeightRule": "edgec.compiler.sparse.scheme",
    "Lora": "edgec.compiler.sparse.scheme",
    "NewHead": "edgec.compiler.adapt",
    "ImageInput": "edgec.compiler.adapt",
    "UserError": "edgec.graph.errors",
}
__all__ = ["__version__", *_EXPORTS]


def __getattr__(name: str) -> object:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'edgec' has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)
