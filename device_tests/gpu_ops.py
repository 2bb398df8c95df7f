"""Which kernels each op gets on GPUs, and which ops get none: a table made of the op cases.

python device_tests/gpu_ops.py > device_tests/gpu_ops.md
"""

from __future__ import annotations

import sys
from collections import Counter

from cases.all_cases import OP_CASES
from cases.op_case import OpCase

from edgec.backends.targets import find_target
from edgec.backends.tvm.backend import TvmBackend
from edgec.backends.tvm.gpu.depthwise import DepthwiseSpec, DepthwiseSumSpec
from edgec.backends.tvm.gpu.kernels import ItemSpec, TeamSpec
from edgec.backends.tvm.gpu.parts import PartsSpec
from edgec.backends.tvm.gpu.products import ProductSpec
from edgec.backends.tvm.gpu.sums import SumSpec
from edgec.backends.tvm.gpu.tensor_cores import TensorCoreSpec
from edgec.backends.tvm.strategies import lower_group
from edgec.graph.ops import ALL_OPS
from edgec.runtime.abi import Storage
from edgec.tools.testing.op_group import op_group

TARGETS = ("mobile-gpu", "cuda:sm_90+tf32")
KINDS = {
    ItemSpec: "item",
    TeamSpec: "team",
    ProductSpec: "tile",
    TensorCoreSpec: "tensor cores",
    DepthwiseSpec: "depthwise",
    DepthwiseSumSpec: "depthwise sum",
    SumSpec: "sum in parts",
    PartsSpec: "parts",
}
_HEAD = """\
# Kernels of ops on GPUs

Made by `python device_tests/gpu_ops.py`; a test holds it to what the code does. For each op how many cases it has, and
the kinds of kernels (`backends/tvm/README.md`, "Devices") that any of them is lowered to with `mobile-gpu` or
`cuda:sm_90+tf32`. All cases run on PoCL in `test_op_cases.py` (long), and on NVIDIA GPUs by `gpu_check.py`.
"""


def kinds(case: OpCase) -> set[str] | None:
    """None where some target has no lowering for it."""
    group, found = op_group(case.op, case.types), set()
    storage = {value: Storage.row_major(value.type.shape) for value in (*group.inputs, *group.outputs)}
    for target in map(find_target, TARGETS):
        if TvmBackend(target).unsupported(group.anchor) is not None:
            return None
        found |= {KINDS[type(call.spec)] for call in lower_group(group, storage, {}, target).calls}
    return found


def table() -> str:
    """The page."""
    counts = Counter(case.op.name for case in OP_CASES)
    by_op: dict[str, set[str]] = {op.name: set() for op in ALL_OPS}
    lacking = set()
    for case in OP_CASES:
        found = kinds(case)
        if found is None:
            lacking.add(case.op.name)
        else:
            by_op[case.op.name] |= found
    order = list(KINDS.values())
    rows = [
        f"| `{name}` | {counts[name]} | {', '.join(sorted(by_op[name], key=order.index))} |" for name in sorted(by_op)
    ]
    none = ", ".join(f"`{name}`" for name in sorted(lacking)) or "none"
    head = f"{_HEAD}\nWithout a lowering: {none}.\n\n| op | cases | kernels |\n|---|---|---|\n"
    return head + "\n".join(rows) + "\n"


if __name__ == "__main__":
    sys.stdout.write(table())
