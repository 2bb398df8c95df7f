"""C text of kernels: what TVM's C generator prints, made standard C11 that stands alone.

TVM ties its text to its own headers, prints float literals with seven digits and reinterprets bits through pointers of
another type. `tidy` leaves one function that needs `PRELUDE` and nothing else. Compiled with `-ffp-contract=off` it
gives the same bits on every machine with IEEE single precision. Loads no tvm.
"""

from __future__ import annotations

import re

import numpy as np

from edgec.graph.errors import InternalError

PRELUDE = """\
#include <math.h> /* INFINITY, NAN: no function */
#include <stdbool.h>
#include <stdint.h>

static inline float as_f32(int32_t bits) {
  union { int32_t i; float f; } value = {.i = bits};
  return value.f;
}

static inline int32_t as_i32(float number) {
  union { float f; int32_t i; } value = {.f = number};
  return value.i;
}
"""

# `builder.constant` writes f32 constants other than 0 as bits, so that no digit is lost on the way here.
_CONSTANT = re.compile(r"\(?\*\(float \*\)\(&\((-?\d+)\)\)\)?")
_REINTERPRET = re.compile(r"\*\((float|int|int32_t) \*\)\(&\((\w+)\)\)")
_LOCAL = re.compile(r"^ *(?:bool|float|int\d+_t|uint\d+_t) (\w+) = [^;]*;\n", re.MULTILINE)
_CELL = re.compile(r"^ *(?:bool|float|int\d+_t|uint\d+_t) (\w+)\[1\];\n", re.MULTILINE)
_TVM_LITERAL = re.compile(r"\b\d\.\d{6}e[+-]\d\d")


def tidy(source: str, symbol: str) -> str:
    """The function `symbol` of a generated file, `static`, in standard C. InternalError where it cannot be."""
    start = re.search(rf"^TVM_DLL [^;{{]*\b{re.escape(symbol)}\([^;]*\{{", source, re.MULTILINE)
    if start is None:
        raise InternalError(f"kernel `{symbol}`: the C text does not define its function")
    text = plain_literals(source[start.start() :].removeprefix("TVM_DLL ").rstrip() + "\n", symbol)
    text = without_unread_locals(text)
    head, brace, body = text.partition("{")
    return f"static {head.replace('* p', '* restrict p')}{brace}{body}"  # arguments never overlap


def plain_literals(text: str, symbol: str) -> str:
    """Numbers in full, and reinterpretation of bits as calls of `as_f32` and `as_i32`."""
    text = text.replace("0.000000e+00f", "0.0f").replace("0x0p+0f/*0.000000e+00*/", "0.0f")
    if _TVM_LITERAL.search(text):
        raise InternalError(f"kernel `{symbol}`: its C text holds a rounded constant\n{text}")
    text = _CONSTANT.sub(lambda match: _literal(int(match[1])), text)
    text = _REINTERPRET.sub(lambda match: f"as_{'f32' if match[1] == 'float' else 'i32'}({match[2]})", text)
    if "*)(&" in text:
        raise InternalError(f"kernel `{symbol}`: its C text casts pointers\n{text}")
    return text


def without_unread_locals(text: str) -> str:
    """Drop names that a kernel binds, and cells that it sets, and with extents of one never reads: compilers warn."""
    while True:
        unread = [m for m in _LOCAL.finditer(text) if _mentions(text, m[1]) == 1]
        for cell in _CELL.finditer(text):
            stores = list(re.finditer(rf"^ *{cell[1]}\[0\] = [^;]*;\n", text, re.MULTILINE))
            if _mentions("".join(match[0] for match in stores), cell[1]) == _mentions(text, cell[1]) - 1 == len(stores):
                unread += [cell, *stores]
        if not unread:
            return text
        for match in sorted(unread, key=re.Match.start, reverse=True):
            text = text[: match.start()] + text[match.end() :]


def _mentions(text: str, name: str) -> int:
    return len(re.findall(rf"\b{name}\b", text))


def _literal(bits: int) -> str:
    """The shortest C literal of an f32 that reads back as the same bits."""
    value = np.int32(bits).view(np.float32)
    if np.isnan(value):
        return "NAN"
    if np.isinf(value):
        return "INFINITY" if value > 0 else "(-INFINITY)"
    return f"{value!s}f" if value >= 0 else f"({value!s}f)"
