"""Torch program to graph: walks the calls in order, folds what is known, converts the rest, collects what it cannot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.export import ExportedProgram

from edgec.frontend.torch.archive import load_archive
from edgec.frontend.torch.call import Call, Program, Ref, Unsupported
from edgec.frontend.torch.context import MAX_ELEMENTS, Context, Converted, Entry
from edgec.frontend.torch.export import export_module
from edgec.frontend.torch.fold import FOLDABLE, MAX_FOLDED, evaluate, references
from edgec.frontend.torch.ops import CONVERTERS, refusal
from edgec.frontend.torch.ops_complex import ON_COMPLEX, is_complex
from edgec.frontend.torch.program import read_program
from edgec.frontend.torch.shapes import Shape, bind_shapes
from edgec.frontend.torch.state import source_state
from edgec.graph.errors import UserError
from edgec.graph.ir import Graph, Module, Role, Value


def import_torch(
    source: torch.nn.Module | ExportedProgram | str | Path,
    example_inputs: Sequence[object] | Mapping[str, object] | None,
    shapes: Mapping[str, Shape],
    batch: int | None,
) -> Module:
    """See `edgec.frontend.torch.read_torch`."""
    if isinstance(source, str | Path):
        label = str(source)
        exported = load_archive(Path(source))
    elif isinstance(source, ExportedProgram):
        label, exported = "the exported program", source
    elif isinstance(source, torch.nn.Module):
        label = type(source).__name__
        exported = export_module(source, example_inputs)
    else:
        raise UserError("E0101", f"a `{type(source).__qualname__}` is not a torch model")
    program = read_program(bind_shapes(exported, shapes, batch, label), CONVERTERS, label)
    return Module({"infer": Importer(program).run()}, source_state(exported, program.stored.values()))


@dataclass(frozen=True)
class _Problem:
    call: Call
    code: str
    reason: str

    def __str__(self) -> str:
        return f"  `{self.call.label}` ({self.call.op}): {self.reason}"


class Importer:
    def __init__(self, program: Program):
        self.program = program
        self.calls = _needed(program)
        self.graph = Graph("infer")
        names = {known.name for known in program.stored.values()}
        self.ctx = Context(self.graph, frozenset(names.union(program.inputs)))
        self.folded = 0
        self.problems: list[_Problem] = []
        self.lost: set[str] = set()  # calls that failed: what reads them is not judged
        for name, kind in program.inputs.items():
            if name in names:
                message = f"an input and a stored tensor are both called `{name}`"
                raise UserError("E0103", message, where=program.label, hint="rename the argument of forward")
            if kind.size > MAX_ELEMENTS:
                message = f"input `{name}` would have more than {MAX_ELEMENTS} elements"
                raise UserError("E0103", message, where=program.label)
            self.ctx.entries[name] = self.graph.add_leaf(Role.INPUT, name, kind)
        self.ctx.entries.update(program.stored)

    def run(self) -> Graph:
        for call in self.calls:
            self._import(call)
        if self.problems:
            raise _listed(self.problems, self.program.label)
        for name, ref in self.program.outputs.items():
            try:
                self.graph.outputs[name] = self.ctx.as_value(self.ctx.resolve(ref))
            except Unsupported as error:
                raise UserError("E0103", f"output `{name}`: {error}", where=self.program.label) from None
        _remove_dead(self.graph)
        return self.graph

    def _import(self, call: Call) -> None:
        refs = references(list(call.arguments.values()))
        if not self.lost.isdisjoint(ref.name for ref in refs):
            self.lost.add(call.name)
            return
        made = len(self.graph.nodes)
        try:
            results = self._convert(call, refs)
            self._bind(call, results, {v for n in self.graph.nodes[made:] for v in n.outputs})
            return
        except Unsupported as error:
            self.problems.append(_Problem(call, "E0103", str(error)))
        except UserError as error:
            reason = error.message if error.hint is None else f"{error.message} ({error.hint})"
            self.problems.append(_Problem(call, error.code, reason))
        self.lost.add(call.name)

    def _convert(self, call: Call, refs: list[Ref]) -> Converted:
        if call.op in FOLDABLE or call.op in CONVERTERS:
            known = evaluate(call, {ref: self.ctx.resolve(ref) for ref in refs}, MAX_FOLDED - self.folded)
            if known is not None:
                self.folded += known[1]
                return known[0] if len(known[0]) > 1 else known[0][0]
        if call.op not in CONVERTERS:
            raise Unsupported(refusal(call))
        if any(is_complex(self.ctx.resolve(ref)) for ref in refs):
            if call.op not in ON_COMPLEX:
                raise Unsupported("of complex tensors")
            return ON_COMPLEX[call.op](self.ctx, call)
        return CONVERTERS[call.op](self.ctx, call)

    def _bind(self, call: Call, results: Converted, made: set[Value]) -> None:
        """Give the results their names. Values `made` for this call take them, an alias keeps the one it has."""
        self.ctx.entries[call.name] = results
        several = isinstance(results, tuple)
        for index, value in enumerate(results if several else (results,)):
            name = f"{call.name}.{index}" if several and len(results) > 1 else call.name
            if value in made and self.ctx.free_name(name) == name:
                self.graph.rename(value, name)
        self._check(call, results)

    def _check(self, call: Call, results: Converted) -> None:
        """What a converter makes has the type that torch gave it: a bug of ours shows here, not in a wrong answer."""
        entries: tuple[Entry | None, ...] = results if isinstance(results, tuple) else (results,)
        for value, kind in zip(entries, call.results, strict=False):
            if isinstance(value, Value) and kind is not None and value.type != kind:
                raise Unsupported(f"edgec would compute {value.type} where torch computes {kind}")


def _needed(program: Program) -> list[Call]:
    """The calls that the outputs depend on, in order."""
    wanted = {ref.name for ref in program.outputs.values()}
    needed = []
    for call in reversed(program.calls):
        if call.name in wanted:
            wanted.update(ref.name for ref in references(list(call.arguments.values())))
            needed.append(call)
    return needed[::-1]


def _listed(problems: list[_Problem], label: str) -> UserError:
    """E0103 with every problem; E0201 if all operators are known and only operands do not fit."""
    code = "E0103" if any(problem.code == "E0103" for problem in problems) else "E0201"
    what = "that cannot be imported" if code == "E0103" else "with operands that do not fit"
    count = "1 operation" if len(problems) == 1 else f"{len(problems)} operations"
    hint = "write them with other operations of torch, or leave them to the application around the model"
    lines = [f"the model has {count} {what}:", *map(str, problems)]
    nodes = [{"node": item.call.label, "op": item.call.op, "reason": item.reason} for item in problems]
    return UserError(code, "\n".join(lines), where=label, hint=hint if code == "E0103" else None, nodes=nodes)


def _remove_dead(graph: Graph) -> None:
    alive = graph.ancestors(graph.results())
    graph.remove_all([node for node in graph.nodes if node not in alive])
    for leaf in [*graph.by_role(Role.PARAM), *graph.by_role(Role.CONSTANT)]:
        if not leaf.uses and not graph.is_result(leaf):
            graph.remove_leaf(leaf)
