"""What every op must have, whoever wrote it: walks ALL_OPS, the folder and the README's table."""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

import edgec.graph.ops
from edgec.graph.ops import ALL_OPS
from edgec.graph.ops.base import ChannelRule, Op, Tolerance

OPS_FOLDER = Path(edgec.graph.ops.__file__).parent
README = (OPS_FOLDER.parent / "README.md").read_text()
ATTRIBUTE_TYPE = re.compile(r"int|float|bool|str|Pair|Pads|tuple\[.*\]")

every_op = pytest.mark.parametrize("op", ALL_OPS, ids=lambda op: op.name)


def op_modules() -> set[str]:
    """Names of the files in which an op stands: those that define a `name`."""
    stated = re.compile(r"^    name: ClassVar.* = ", re.MULTILINE)
    return {path.stem for path in OPS_FOLDER.glob("*.py") if stated.search(path.read_text())}


def readme_rows() -> dict[str, str]:
    """The README's table of ops: class name to its whole row."""
    table = README.split("\n## Ops\n")[1].split("\n## ")[0]
    rows = {}
    for row in table.splitlines():
        if row.startswith("| `"):
            rows |= {cls: row for cls in re.findall(r"`([A-Z]\w+)`", row.split("|")[1])}
    return rows


def test_names_are_unique():
    names = [op.name for op in ALL_OPS]
    assert len(set(names)) == len(names)
    assert len(set(ALL_OPS)) == len(ALL_OPS)


def test_every_file_with_an_op_is_listed():
    assert op_modules() == {op.name for op in ALL_OPS}


def test_the_readme_lists_exactly_these_ops():
    assert set(readme_rows()) == {op.__name__ for op in ALL_OPS}


@every_op
def test_its_name_is_that_of_its_file_and_class(op):
    assert op.__module__ == f"edgec.graph.ops.{op.name}"
    assert op.__name__.lower() == op.name.replace("_", "")


@every_op
def test_it_says_what_it_is(op):
    assert op.__doc__ and not op.__doc__.startswith(f"{op.__name__}(")  # the docstring that dataclass makes up
    assert isinstance(op.tolerance, Tolerance)
    assert isinstance(op.elementwise, bool)
    assert isinstance(op.channel_rule, ChannelRule | property)


@every_op
def test_it_is_complete(op):
    assert not op.__abstractmethods__
    differentiable = op.vjp is not Op.vjp
    assert differentiable != bool(op.no_gradient), "a vjp, or the reason why there is none"


@every_op
def test_its_attributes_are_plain_and_in_the_readme(op):
    assert is_dataclass(op) and op.__dataclass_params__.frozen and op.__dataclass_params__.eq
    row = readme_rows()[op.__name__]
    shared = "the same" in row  # attributes of the op in the row above
    for field in fields(op):
        assert ATTRIBUTE_TYPE.fullmatch(field.type), f"{field.name}: {field.type}"
        assert shared or f"`{field.name}" in row, f"{field.name} is not in the README's row"
