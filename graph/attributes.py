"""The declared types of op attributes: what parser and verifier hold values against, and what the text form prints."""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

from edgec.graph.ops.base import Op


@cache
def declared_types(op: type[Op]) -> dict[str, Any]:
    """Attribute names, in order, to types: bool, int, float, str, or tuples of them."""
    hints = get_type_hints(op)
    return {field.name: hints[field.name] for field in fields(op)}


def is_of_type(value: object, declared: Any) -> bool:
    """Whether an attribute is exactly of its declared type. An int may stand for a float; numbers of numpy may not."""
    if get_origin(declared) is tuple:
        kinds = get_args(declared)
        if type(value) is not tuple:
            return False
        if kinds[-1:] == (...,):
            return all(is_of_type(entry, kinds[0]) for entry in value)
        return len(value) == len(kinds) and all(map(is_of_type, value, kinds))
    return type(value) is declared or (declared is float and type(value) is int)


def type_text(declared: Any) -> str:
    """`int`, `tuple[int, ...]`: a declared type as its author wrote it."""
    return declared.__name__ if isinstance(declared, type) and not get_args(declared) else str(declared)
