"""Parses the text form of graphs. Every mistake is a UserError E0202 (E0201 for types) with line and column.

Grammar (`//` begins a comment that ends with the line):

    module    = graph*
    graph     = "graph" name "{" line* "}"
    line      = role value ":" type ["=" data] ["trainable"]
              | value ":" type {"," value ":" type} "=" op "(" [value {"," value}] ")" [attributes] ["@" string]
              | "output" string "=" value ["counted" "by" string "along" number]
              | "update" value "=" value | "loss" string | "guard" string
    data      = "#" hash | "[" [element {"," element}] "]"
    attributes = "{" name "=" attribute {"," name "=" attribute} "}"
    attribute = number | "true" | "false" | string | "(" [attribute {"," attribute}] ")"
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from functools import partial
from typing import Any

import numpy as np

from edgec.graph.attributes import declared_types, is_of_type, type_text
from edgec.graph.errors import UserError
from edgec.graph.ir import Bounds, Count, Graph, Module, Role, Value
from edgec.graph.ops import ALL_OPS
from edgec.graph.ops.base import Op
from edgec.graph.text import read_elements
from edgec.graph.types import DType, TensorType

_TOKEN = re.compile(
    r"""(?P<space>\s+|//[^\n]*)
      | (?P<value>%(?:[A-Za-z0-9_.]+|"(?:\\.|[^"\\\n])*"))
      | (?P<string>"(?:\\.|[^"\\\n])*")
      | (?P<hash>\#[0-9a-f]{16}(?![0-9a-f]))
      | (?P<number>-?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|-inf\b)
      | (?P<word>[A-Za-z_][A-Za-z0-9_.]*)
      | (?P<mark>[{}()\[\]=:,@])
    """,
    re.VERBOSE | re.ASCII,
)
_ROLES = {role.value: role for role in Role}
_DTYPES = {dtype.value: dtype for dtype in DType}
_OPS = {op.name: op for op in ALL_OPS}
_END = "end of text"
MAX_QUOTED = 200  # characters of a line that errors show
MAX_NESTING = 8  # of attributes
MAX_DIGITS = 40  # of an integer; Python refuses some thousands


def parse_graph(text: str, data: Mapping[str, np.ndarray] | None = None) -> Graph:
    """The one program in `text`. `data` maps hashes to arrays; leaves whose hash it lacks get `data=None`."""
    parser = _Parser(text, data or {})
    graph = parser.graph()
    parser.expect(_END)
    return graph


def parse_module(text: str, data: Mapping[str, np.ndarray] | None = None) -> Module:
    """All programs in `text`, by name."""
    parser = _Parser(text, data or {})
    module = Module()
    while parser.token.kind != _END:
        start = parser.token
        graph = parser.graph()
        if graph.name in module.programs:
            raise parser.error(f"program `{graph.name}` is defined twice", start)
        module.programs[graph.name] = graph
    return module


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    position: int


class _Parser:
    """Recursive descent over tokens; one method per rule of the grammar."""

    def __init__(self, text: str, data: Mapping[str, np.ndarray]):
        self._source = text
        self._data = data
        self._tokens = self._tokenize()
        self._next = 0
        self._graph = Graph("")
        self._values: dict[str, Value] = {}

    # -- tokens -----------------------------------------------------------------------------------------------------

    def _tokenize(self) -> list[_Token]:
        tokens, position = [], 0
        while position < len(self._source):
            match = _TOKEN.match(self._source, position)
            if match is None:
                bad = _Token("", self._source[position], position)
                raise self.error(f"unexpected character {bad.text!r}", bad)
            if match.lastgroup != "space":
                kind = match.group() if match.lastgroup == "mark" else match.lastgroup
                tokens.append(_Token(kind, match.group(), position))
            position = match.end()
        return [*tokens, _Token(_END, "", position)]

    @property
    def token(self) -> _Token:
        return self._tokens[self._next]

    def error(self, message: str, at: _Token, *, code: str = "E0202", hint: str | None = None) -> UserError:
        line = self._source.count("\n", 0, at.position) + 1
        start = self._source.rfind("\n", 0, at.position) + 1
        quoted = self._source[start : start + MAX_QUOTED].split("\n", 1)[0].strip()
        where = f"line {line}, column {at.position - start + 1}: {quoted}"
        return UserError(code, message, where=where, hint=hint)

    def expect(self, kind: str) -> _Token:
        token = self.token
        if token.kind != kind:
            raise self.error(f"expected {kind}, found {token.text or token.kind}", token)
        self._next += kind != _END
        return token

    def accept(self, kind: str, text: str | None = None) -> bool:
        found = self.token.kind == kind and (text is None or self.token.text == text)
        self._next += found
        return found

    def keyword(self, *words: str) -> str | None:
        """The next word, consumed, if it is one of `words`."""
        if self.token.kind == "word" and self.token.text in words:
            return self.expect("word").text
        return None

    def require(self, word: str) -> None:
        if self.keyword(word) is None:
            raise self.error(f"expected {word}, found {self.token.text or _END}", self.token)

    def listed(self, rule: Callable[[], Any], opening: str, closing: str) -> list[Any]:
        """Zero or more of a rule, with commas between."""
        self.expect(opening)
        items = []
        while not self.accept(closing):
            if items:
                self.expect(",")
            items.append(rule())
        return items

    def string(self) -> str:
        return self._unquote(self.expect("string"))

    def _unquote(self, token: _Token) -> str:
        try:
            return json.loads(token.text)
        except ValueError as error:
            raise self.error("a string with a wrong escape", token, hint="strings are written as in JSON") from error

    # -- graph ------------------------------------------------------------------------------------------------------

    def graph(self) -> Graph:
        if self.keyword("graph") is None:
            raise self.error(f"expected graph, found {self.token.text or _END}", self.token)
        name = self.string() if self.token.kind == "string" else self.expect("word").text
        self._graph, self._values = Graph(name), {}
        self.expect("{")
        while not self.accept("}"):
            self.line()
        return self._graph

    def line(self) -> None:
        token = self.token
        if token.kind == "value":
            self.node()
        elif (role := self.keyword(*_ROLES)) is not None:
            self.leaf(_ROLES[role])
        elif self.keyword("output"):
            name = self.string()
            if name in self._graph.outputs:
                raise self.error(f"output {name!r} is defined twice", token)
            self.expect("=")
            self._graph.outputs[name] = self.used_value()
            if self.keyword("counted"):
                self._graph.counts[name] = self.count()
        elif self.keyword("update"):
            self.update(token)
        elif self.keyword("loss"):
            self._graph.loss = self.string()
        elif self.keyword("guard"):
            self._graph.guard = self.string()
        else:
            roles = ", ".join(_ROLES)
            hint = f"a line begins with %name, {roles}, output, update, loss or guard"
            raise self.error(f"unexpected {token.text or _END}", token, hint=hint)

    def count(self) -> Count:
        self.require("by")
        name = self.string()
        self.require("along")
        return Count(name, self.extent())

    def update(self, token: _Token) -> None:
        leaf = self.used_value()
        if leaf.role not in (Role.PARAM, Role.STATE):
            raise self.error(f"`{leaf.name}` is neither param nor state: it cannot be updated", token)
        if leaf in self._graph.updates:
            raise self.error(f"`{leaf.name}` is updated twice", token)
        self.expect("=")
        self._graph.updates[leaf] = self.used_value()

    def leaf(self, role: Role) -> None:
        token, name, kind = self.typed_value()
        data = self.leaf_data(kind) if self.accept("=") else None
        trainable = self.keyword("trainable") is not None
        bounds = self.bounds() if self.keyword("within") else None
        self._values[name] = self._graph.add_leaf(role, name, kind, data=data, trainable=trainable, bounds=bounds)

    def bounds(self) -> Bounds:
        token = self.token
        numbers = self.listed(self.attribute, "(", ")")
        if len(numbers) not in (2, 3) or not all(type(number) is int for number in numbers):
            raise self.error("bounds are two integers, lowest and highest, and perhaps one more that is allowed", token)
        return Bounds(*numbers)

    def leaf_data(self, kind: TensorType) -> np.ndarray | None:
        token = self.token
        if self.accept("hash"):
            array = self._data.get(token.text[1:])
            if array is not None and TensorType(DType.of(array.dtype), array.shape) != kind:
                raise self.error(f"the data behind {token.text} is {array.dtype}{list(array.shape)}", token)
            return array
        elements = self.listed(self.element, "[", "]")
        try:
            return read_elements(elements, kind)
        except (ValueError, KeyError, OverflowError) as error:
            raise self.error(f"these elements do not make up a {kind}", token) from error

    def element(self) -> str:
        token = self.token
        if not (self.accept("number") or self.keyword("true", "false", "inf", "nan")):
            raise self.error(f"expected a number, true or false, found {token.text or _END}", token)
        return token.text

    def node(self) -> None:
        first = self.token
        results = [self.typed_value()]
        while self.accept(","):
            results.append(self.typed_value())
        self.expect("=")
        op_token = self.expect("word")
        operands = self.listed(self.used_value, "(", ")")
        op = self.op(op_token)
        source = self.string() if self.accept("@") else ""
        names = [name for _, name, _ in results]
        if len(set(names)) != len(names):
            raise self.error("a node's results must have different names", first)
        try:
            types = op.infer(*(value.type for value in operands))
        except UserError as error:
            raise self.error(error.message, op_token, code=error.code, hint=error.hint) from error
        stated = tuple(kind for _, _, kind in results)
        if types != stated:
            inferred = ", ".join(map(str, types))
            raise self.error(f"{op.name} gives {inferred}, the text says {', '.join(map(str, stated))}", first)
        for name, value in zip(names, self._graph.emit(op, *operands, names=names, source=source), strict=True):
            self._values[name] = value

    # -- values, types, attributes ----------------------------------------------------------------------------------

    def _name(self, token: _Token) -> str:
        body = token.text[1:]
        return self._unquote(_Token("string", body, token.position)) if body.startswith('"') else body

    def typed_value(self) -> tuple[_Token, str, TensorType]:
        """A value that this line defines."""
        token = self.expect("value")
        name = self._name(token)
        if name in self._values:
            raise self.error(f"value `{name}` is defined twice", token)
        self.expect(":")
        return token, name, self.type()

    def used_value(self) -> Value:
        token = self.expect("value")
        value = self._values.get(self._name(token))
        if value is None:
            raise self.error(f"value {token.text} is not defined above", token)
        return value

    def type(self) -> TensorType:
        token = self.expect("word")
        if token.text not in _DTYPES:
            raise self.error(f"unknown dtype {token.text}", token, hint=f"dtypes are {', '.join(_DTYPES)}")
        return TensorType(_DTYPES[token.text], tuple(self.listed(self.extent, "[", "]")))

    def extent(self) -> int:
        token = self.expect("number")
        if not token.text.isdigit():
            raise self.error(f"{token.text} is not an extent", token, hint="shapes are static: integers from 0")
        return self._integer(token)

    def _integer(self, token: _Token) -> int:
        if len(token.text) > MAX_DIGITS:
            raise self.error(f"a number of {len(token.text)} digits", token)
        return int(token.text)

    def op(self, token: _Token) -> Op:
        """The op named by `token`, with the attributes that follow."""
        if token.text not in _OPS:
            raise self.error(f"unknown op {token.text}", token)
        declared = declared_types(_OPS[token.text])
        given: dict[str, Any] = {}

        def entry() -> None:
            name = self.expect("word")
            if name.text not in declared or name.text in given:
                problem = "is given twice" if name.text in given else "is unknown"
                hint = f"{token.text} has {', '.join(declared) or 'no attributes'}"
                raise self.error(f"attribute {name.text} of {token.text} {problem}", name, hint=hint)
            self.expect("=")
            kind, value_token, value = declared[name.text], self.token, self.attribute()
            if not is_of_type(value, kind):
                raise self.error(f"attribute {name.text} of {token.text} is not {type_text(kind)}", value_token)
            given[name.text] = float(value) if kind is float else value

        if self.token.kind == "{":
            self.listed(entry, "{", "}")
        required = (field.name for field in fields(_OPS[token.text]) if field.default is MISSING)
        missing = [name for name in required if name not in given]
        if missing:
            raise self.error(f"{token.text} needs {', '.join(missing)}", token)
        return _OPS[token.text](**given)

    def attribute(self, depth: int = 0) -> Any:
        token = self.token
        if token.kind == "(":
            if depth == MAX_NESTING:
                raise self.error(f"attributes are nested more than {MAX_NESTING} deep", token)
            return tuple(self.listed(partial(self.attribute, depth + 1), "(", ")"))
        if token.kind == "string":
            return self.string()
        if (word := self.keyword("true", "false", "inf", "nan")) is not None:
            return {"true": True, "false": False}[word] if word in ("true", "false") else float(word)
        number = self.expect("number")
        return self._integer(number) if re.fullmatch(r"-?\d+", number.text) else float(number.text)
