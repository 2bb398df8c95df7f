"""Pass `share_constants`: equal constants of all programs have one name, different ones different names.

Tensors of an artifact are shared between programs by name; what a graph calls a constant is its own affair until then.

Ensures CONSTANTS_SHARED.
"""

from __future__ import annotations

import hashlib

from edgec.compiler.passbase import Options
from edgec.graph.ir import Module, Role, Value


def share_constants(module: Module, options: Options) -> bool:
    taken = {v.name for graph in module.programs.values() for v in graph.values() if v.role is not Role.CONSTANT}
    names: dict[tuple[str, str], str] = {}
    changed = False
    for graph in module.programs.values():
        own: dict[tuple[str, str], Value] = {}
        wanted: dict[Value, str] = {}
        for leaf in graph.by_role(Role.CONSTANT):
            key = (str(leaf.type), hashlib.sha256(leaf.data.tobytes()).hexdigest())
            if key in own:
                graph.replace_uses(leaf, own[key])
                graph.remove_leaf(leaf)
                changed = True
                continue
            own[key] = leaf
            if key not in names:
                names[key] = _fresh(leaf.name, taken)
                taken.add(names[key])
            if leaf.name != names[key]:
                wanted[leaf] = names[key]
        # Through names that nobody has, since two constants may swap theirs.
        for leaf in wanted:
            graph.rename(leaf, graph.fresh_name("constant.being.renamed"))
        for leaf, name in wanted.items():
            graph.rename(leaf, name)
        changed |= bool(wanted)
    return changed


def _fresh(stem: str, taken: set[str]) -> str:
    name, counter = stem, 1
    while name in taken:
        name, counter = f"{stem}.{counter}", counter + 1
    return name
