"""What the JSON of a `.pt2` program may say: the parts that torch would evaluate, import or look up by name.

Everything else in it is numbers and names, which torch's deserializer turns into a graph without running any of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

# Tree specifications name classes; these are the ones that need no import.
_CONTAINERS = {"builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict", None}
_TARGETS = re.compile(
    r"torch\.ops\.aten\.(?!from_file|save|_?load)\w+\.\w+"
    r"|_operator\.(getitem|add|sub|mul|floordiv|truediv|mod|neg|eq|ne|lt|le|gt|ge|and_|or_)"
    r"|torch\.sym_(max|min|not|float|int|ite|sqrt)"
    r"|math\.(ceil|floor|trunc)"
)
# sympy evaluates these as Python: numbers, symbols, arithmetic and calls of some functions, nothing else. No powers.
_EXPRESSION = re.compile(
    r"(?:\s|\d+(?![\w.])|[su]\d+|\*(?!\*)|[-+/(),]|'[su]\d+'|\b(?:positive|integer|nonnegative)=(?:True|False)\b"
    r"|\b(?:Symbol|Integer|Add|Mul|Mod|PythonMod|FloorDiv|CeilDiv|Max|Min)\b)*"
)
_METADATA = ("stack_trace", "nn_module_stack")


class Refused(Exception):
    """The archive is damaged, or holds what a model has no need of."""


def vet_program(program: dict) -> None:
    """Check a program in place, and drop from it what is only for torch: guards, most metadata. Raises `Refused`."""
    program["guards_code"] = []
    try:
        for node in program["graph_module"]["graph"]["nodes"]:
            if not isinstance(node["target"], str) or not _TARGETS.fullmatch(node["target"]):
                raise Refused(f"the program calls `{node['target']}`, which is not an operator of torch's own")
            known = node.get("metadata") or {}
            node["metadata"] = {key: known[key] for key in _METADATA if isinstance(known.get(key), str)}
        for entry in program["graph_module"].get("module_call_graph") or []:
            _vet_trees(entry.get("signature") or {})
    except (KeyError, TypeError, AttributeError):
        raise Refused("the program is not of the form that torch.export writes") from None
    for key, value in _walk(program):
        if key == "expr_str" and (not isinstance(value, str) or len(value) > 500 or not _EXPRESSION.fullmatch(value)):
            raise Refused(f"a size of the program is the expression `{str(value)[:60]}`")
        if key in ("as_operator", "as_custom_obj", "as_graph") and value is not None:
            raise Refused(f"the program has an argument of kind `{key[3:]}`")


def _vet_trees(signature: dict) -> None:
    for key in ("in_spec", "out_spec"):
        if not signature.get(key):
            continue
        try:
            tree = json.loads(signature[key])
        except (ValueError, RecursionError):
            raise Refused("a tree specification is not JSON") from None
        for name, value in _walk(tree):
            if name == "type" and value not in _CONTAINERS:
                raise Refused(f"inputs or outputs stand in a `{value}`; tuples, lists and dicts are supported")
            if name == "context" and isinstance(value, str) and "__" in value:
                raise Refused("a tree specification names classes")


def _walk(value: object) -> Iterator[tuple[str, object]]:
    """All keys of all objects, with their values. Not recursive: depth is the file's."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            yield from item.items()
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)
