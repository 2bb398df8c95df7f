"""The text form of graphs: what passes are tested in, what `--dump-ir` writes, and what errors quote.

`edgec.graph.parse` reads it back. Values of params, states and large constants are not in it: they stand there by hash,
and `data_by_hash` gives the arrays that the hashes mean.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, fields
from typing import Any

import numpy as np

from edgec.graph.attributes import declared_types
from edgec.graph.ir import Count, Graph, Module, Node, Role, Value
from edgec.graph.ops.base import Op
from edgec.graph.types import TensorType

INLINE_ELEMENTS = 8  # constants of at most this size are written out

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.]+")
_PLAIN_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")

Span = tuple[int, int]  # of characters in a line: first, one past the last


def print_graph(graph: Graph) -> str:
    """The text form of one program, ending in a newline."""
    lines = [f"graph {_word(graph.name)} {{"]
    lines += [f"  {leaf_text(leaf)}" for leaf in graph.leaves.values()]
    lines += [f"  {node_text(node).text}" for node in graph.nodes]
    lines += [
        f"  output {json.dumps(name)} = {value_name(value)}{_count_text(graph.counts.get(name))}"
        for name, value in graph.outputs.items()
    ]
    lines += [f"  update {value_name(leaf)} = {value_name(value)}" for leaf, value in graph.updates.items()]
    if graph.loss is not None:
        lines.append(f"  loss {json.dumps(graph.loss)}")
    if graph.guard is not None:
        lines.append(f"  guard {json.dumps(graph.guard)}")
    return "\n".join([*lines, "}"]) + "\n"


def print_module(module: Module) -> str:
    """The text forms of all programs of a module, one after the other."""
    return "\n".join(print_graph(graph) for graph in module.programs.values())


def data_by_hash(subject: Graph | Module) -> dict[str, np.ndarray]:
    """The data of all leaves by the hash that stands for it in the text form: what the parser takes."""
    graphs = subject.programs.values() if isinstance(subject, Module) else [subject]
    leaves = (leaf for graph in graphs for leaf in graph.leaves.values())
    return {data_hash(leaf.data): leaf.data for leaf in leaves if leaf.data is not None}


def data_hash(array: np.ndarray) -> str:
    """16 hex digits of the SHA-256 of an array: of dtype and shape, then the elements in row-major order."""
    digest = hashlib.sha256(f"{array.dtype.name}{array.shape}".encode())
    digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
    return digest.hexdigest()[:16]


def value_name(value: Value) -> str:
    """`%name`, quoted where the name is not plain."""
    return f"%{value.name}" if _PLAIN_NAME.fullmatch(value.name) else f"%{json.dumps(value.name)}"


def leaf_text(leaf: Value) -> str:
    """One line for a value that comes from outside."""
    role = leaf.role.value if leaf.role else "no-role"
    data = "" if leaf.data is None else f" = {_data_text(leaf)}"
    trainable = " trainable" if leaf.trainable else ""
    return f"{role} {value_name(leaf)}: {leaf.type}{data}{trainable}{_bounds_text(leaf)}"


@dataclass(frozen=True)
class NodeText:
    """The line of a node, and where its parts stand in it."""

    text: str
    results: tuple[Span, ...]
    op: Span
    operands: tuple[Span, ...]


def node_text(node: Node) -> NodeText:
    """`%y: f32[2] = relu(%x) {attributes} @"source"`."""
    results = [f"{value_name(value)}: {value.type}" for value in node.outputs]
    operands = [value_name(value) for value in node.inputs]
    left = ", ".join(results) + " = "
    opening = f"{left}{node.op.name}("
    attributes = attributes_text(node.op)
    source = f" @{json.dumps(node.source)}" if node.source else ""
    return NodeText(
        f"{opening}{', '.join(operands)}){f' {attributes}' if attributes else ''}{source}",
        _spans(0, results),
        (len(left), len(opening) - 1),
        _spans(len(opening), operands),
    )


def attributes_text(op: Op) -> str:
    """`{strides=(2,2), groups=4}`, without attributes at their defaults; "" if all are. Equal text, equal op."""
    entries = []
    declared = declared_types(type(op))
    for field in fields(op):
        text = attribute_text(getattr(op, field.name), declared[field.name])
        if field.default is MISSING or text != attribute_text(field.default, declared[field.name]):
            entries.append(f"{field.name}={text}")
    return f"{{{', '.join(entries)}}}" if entries else ""


def attribute_text(value: Any, declared: Any) -> str:
    """One attribute: true, 3, 0.5, -inf, "text", (1,2); an integer in an attribute declared float stands as a float."""
    if isinstance(value, tuple):
        return f"({','.join(attribute_text(entry, type(entry)) for entry in value)})"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value)
    return repr(float(value)) if declared is float else str(value)


def _word(name: str) -> str:
    return name if _PLAIN_WORD.fullmatch(name) else json.dumps(name)


def _spans(start: int, parts: Iterable[str]) -> tuple[Span, ...]:
    spans = []
    for part in parts:
        spans.append((start, start + len(part)))
        start += len(part) + len(", ")
    return tuple(spans)


def _bounds_text(leaf: Value) -> str:
    """` within (0,9)`, or ` within (0,9,-100)` where one more number is allowed."""
    if leaf.bounds is None:
        return ""
    numbers = (leaf.bounds.low, leaf.bounds.high, leaf.bounds.ignored)
    return f" within ({','.join(str(number) for number in numbers if number is not None)})"


def _count_text(count: Count | None) -> str:
    """` counted by "n" along 0` where only the first slices along axis 0 hold results."""
    return "" if count is None else f" counted by {json.dumps(count.name)} along {count.axis}"


def _data_text(leaf: Value) -> str:
    if leaf.role is Role.CONSTANT and leaf.data.size <= INLINE_ELEMENTS:
        elements = [_element_text(x) for x in leaf.data.reshape(-1)]
        # NaN has many bit patterns and one spelling: whatever would not come back to the bit goes by hash.
        if read_elements(elements, leaf.type).tobytes() == np.ascontiguousarray(leaf.data).tobytes():
            return f"[{', '.join(elements)}]"
    return f"#{data_hash(leaf.data)}"


def _element_text(x: np.generic) -> str:
    """The shortest decimal that means `x` in its own dtype."""
    if isinstance(x, np.bool_):
        return "true" if x else "false"
    if isinstance(x, np.integer):
        return str(int(x))
    # float() of a short decimal is rounded twice on its way to f32 and below; the exact value is not.
    short = repr(float(str(x)))
    return short if x.dtype.type(float(short)) == x else repr(float(x))


def read_elements(elements: list[str], kind: TensorType) -> np.ndarray:
    """The inverse of how constants are written out. ValueError where an element is none of the dtype."""
    if kind.dtype.is_float:
        values: list[Any] = [float(text) for text in elements]
    elif kind.dtype.value == "bool":
        values = [{"true": True, "false": False}[text] for text in elements]
    else:
        values = [int(text) for text in elements]
    return np.array(values, kind.dtype.numpy).reshape(kind.shape)
