"""Sizes as people write them: `256KB`, `1.5 MB`; powers of 1024."""

from __future__ import annotations

import re

from edgec.graph.errors import UserError

_UNITS = {"": 1, "B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}


def parse_bytes(text: str) -> int | None:
    """The number of bytes, rounded down; None for what is no size."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    if match is None or match[2].upper() not in _UNITS:
        return None
    return int(float(match[1]) * _UNITS[match[2].upper()])


def wanted_bytes(name: str, size: int | str | None) -> int | None:
    """The bytes that field `name` asks for, at least 1; None where it asks for nothing. UserError E0302."""
    if size is None:
        return None
    count = parse_bytes(size) if isinstance(size, str) else size
    if count is None:
        hint = "write a number of bytes, as in 200000, 256KB or 1.5MB"
        raise UserError("E0302", f"{name} = {size!r} is no size", where=name, hint=hint)
    if count < 1:
        raise UserError("E0302", f"{name} = {size!r}: the budget must be at least 1 byte", where=name)
    return count
