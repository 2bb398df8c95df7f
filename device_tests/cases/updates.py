"""Cases of what optimizers do: their steps, the correction of their averages, gradients that are held."""

from cases.op_case import Normal, OpCase, Positive, Uniform, case
from edgec.graph.ops.accumulate import Accumulate
from edgec.graph.ops.adam_update import AdamUpdate
from edgec.graph.ops.bias_correction import BiasCorrection
from edgec.graph.ops.lion_update import LionUpdate

# One element, fewer than a vector, no multiple of any number of lanes, and the weight of a convolution.
SHAPES = {"one": (1,), "row": (3,), "prime": (13, 29), "weight": (10, 3, 3, 3)}
SCALAR = Positive(())


def _cases(name: str, shape: tuple[int, ...]) -> tuple[OpCase, ...]:
    x = Normal(shape)
    averages = (x, Positive(shape))
    return (
        case(name, AdamUpdate(), x, x, SCALAR, SCALAR, SCALAR, *averages),
        case(f"{name}_decay", AdamUpdate(weight_decay=0.1), x, x, SCALAR, SCALAR, SCALAR, *averages),
        case(f"{name}_w", AdamUpdate(0.8, 0.9, 1e-3, 0.1, True), x, x, SCALAR, SCALAR, SCALAR, *averages),
        case(name, LionUpdate(weight_decay=0.1), x, x, SCALAR, x),
        case(name, Accumulate(), x, x, SCALAR),
        case(f"{name}_anew", Accumulate(), x, x, Uniform((), 0.0, 0.0)),
    )


CASES = (
    *(found for name, shape in SHAPES.items() for found in _cases(name, shape)),
    case("step", BiasCorrection(0.999), Uniform((), 1.0, 1.5)),
    case("short", BiasCorrection(0.5), Uniform((3, 5), 1.0, 9.0)),
    case("early", BiasCorrection(0.999), Uniform((7,), 1.0, 400.0)),
    case("late", BiasCorrection(0.9), Uniform((33,), 5.0, 1e6)),
)
