"""What tests of rebatch compare: images together, and as many at a time as the program was written for."""

import numpy as np

from edgec.compiler.rebatch import rebatch
from edgec.graph.interp import run
from edgec.graph.ir import Graph, Role
from edgec.graph.verify import verify_graph


def check(graph: Graph, old: int, new: int, seed: int = 0) -> dict[str, int | None]:
    """Run `new` images at once and `old` at a time, and compare every output along its batch axis."""
    twin, axes = rebatch(graph, new, "train")
    verify_graph(twin)
    rng = np.random.default_rng(seed)
    inputs = {x.name: rng.standard_normal((new, *x.type.shape[1:])) for x in graph.by_role(Role.INPUT)}
    together = run(twin, inputs, np.float64).outputs
    parts = [
        run(graph, {name: array[at : at + old] for name, array in inputs.items()}, np.float64).outputs
        for at in range(0, new, old)
    ]
    for name, axis in axes.items():
        shape = graph.outputs[name].type.shape
        if axis is None:
            np.testing.assert_allclose(together[name], parts[0][name])
            continue
        # The batch is the outermost factor of its axis, so runs of `old` images lie one behind the other.
        expected = np.concatenate([part[name].reshape(*shape[:axis], old, -1) for part in parts], axis=axis).reshape(
            together[name].shape
        )
        np.testing.assert_allclose(together[name], expected, rtol=1e-9, atol=1e-12)
    return axes
