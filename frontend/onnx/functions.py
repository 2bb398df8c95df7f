"""Calls of functions that a model defines itself: their bodies, with the attributes and absent inputs of a call."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from itertools import zip_longest

from edgec.frontend.onnx.model import Attribute, Body, Function, Node, Reference, Unsupported


def called(function: Function, node: Node) -> Body:
    """What a call of `function` stands for. Its inputs are the formal ones; those that the call leaves out are gone.

    onnx's own inliner forgets the defaults of attributes and functions with an operator set of their own.
    """
    formal = function.body.inputs
    if len(node.inputs) > len(formal) or len(node.outputs) > len(function.body.outputs):
        counts, taken = (len(node.inputs), len(node.outputs)), (len(formal), len(function.body.outputs))
        raise Unsupported("{} inputs and {} outputs are given; the function has {} and {}".format(*counts, *taken))
    given = {name: value for name, value in function.defaults.items() if value is not None}
    given |= {name: value for name, value in node.attributes.items() if name in function.defaults}
    absent = {name for name, actual in zip_longest(formal, node.inputs) if not actual}
    return _bound(function.body, given, absent)


def _bound(body: Body, given: Mapping[str, Attribute], absent: Collection[str]) -> Body:
    nodes = tuple(
        replace(
            node,
            inputs=tuple("" if name in absent else name for name in node.inputs),
            attributes={
                name: _bound(value, given, absent) if isinstance(value, Body) else value
                for name, value in _attributes(node, given).items()
            },
        )
        for node in body.nodes
    )
    return replace(body, inputs=tuple(name for name in body.inputs if name not in absent), nodes=nodes)


def _attributes(node: Node, given: Mapping[str, Attribute]) -> dict[str, Attribute]:
    """With the references filled in; one to an attribute that has no value is as if it were not there."""
    return {
        name: given[value.name] if isinstance(value, Reference) else value
        for name, value in node.attributes.items()
        if not isinstance(value, Reference) or value.name in given
    }
