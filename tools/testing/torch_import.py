"""Runs what the torch frontend makes of a module through the reference interpreter, beside torch itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch.utils import _pytree as pytree

from edgec.frontend.torch import read_torch
from edgec.graph.interp import run
from edgec.graph.ir import Graph, Role
from edgec.graph.verify import verify_module


class Together(torch.nn.Module):
    """Several functions as one module, each with arguments of its own: exporting once is what takes the time.

    `cases` maps names to (function or module, arguments); forward returns the results by name.
    """

    def __init__(self, cases: Mapping[str, tuple[Callable, Sequence[torch.Tensor]]]):
        super().__init__()
        self.cases = dict(cases)
        self.parts = torch.nn.ModuleDict(
            {name: function for name, (function, _) in cases.items() if isinstance(function, torch.nn.Module)}
        )

    def forward(self, arguments: Mapping[str, Sequence[torch.Tensor]]) -> dict[str, object]:
        return {name: function(*arguments[name]) for name, (function, _) in self.cases.items()}

    def arguments(self) -> dict[str, Sequence[torch.Tensor]]:
        return {name: tuple(arguments) for name, (_, arguments) in self.cases.items()}


def expected(module: torch.nn.Module, arguments: Sequence[object]) -> dict[str, np.ndarray]:
    """What torch computes, by the names that the frontend gives."""
    with torch.no_grad():
        paths = pytree.tree_flatten_with_path(module(*arguments))[0]
    results = {}
    for path, tensor in paths:
        keys = [str(getattr(part, "key", getattr(part, "idx", part))) for part in path]
        if tensor is not None:
            results[".".join(keys if keys and not keys[0].isdecimal() else ["output", *keys])] = tensor.numpy()
    return results


def imported(module: torch.nn.Module, arguments: Sequence[object]) -> Graph:
    """The verified program."""
    made = read_torch(module, tuple(arguments))
    verify_module(made)
    return made.programs["infer"]


def feeds_for(graph: Graph, arguments: Sequence[object]) -> dict[str, np.ndarray]:
    """The arguments by input name, in the order of both."""
    tensors = [leaf for leaf in pytree.tree_leaves(arguments) if isinstance(leaf, torch.Tensor)]
    names = [leaf.name for leaf in graph.by_role(Role.INPUT)]
    return {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)}


def interpreted(graph: Graph, arguments: Sequence[object]) -> dict[str, np.ndarray]:
    return run(graph, feeds_for(graph, arguments)).outputs
