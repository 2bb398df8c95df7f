"""Cases of gathers, scatters, rankings, minima, products, cumulative ops and resampling."""

from cases.op_case import Integers, Normal, OpCase, Uniform, case
from edgec.graph.ops.arg_max import ArgMax
from edgec.graph.ops.arg_min import ArgMin
from edgec.graph.ops.cum_prod import CumProd
from edgec.graph.ops.cum_prod_grad import CumProdGrad
from edgec.graph.ops.cum_sum import CumSum
from edgec.graph.ops.gather import Gather
from edgec.graph.ops.gather_elements import GatherElements
from edgec.graph.ops.gather_nd import GatherNd
from edgec.graph.ops.gather_nd_grad import GatherNdGrad
from edgec.graph.ops.non_max_suppression import NonMaxSuppression
from edgec.graph.ops.reduce_min import ReduceMin
from edgec.graph.ops.reduce_prod import ReduceProd
from edgec.graph.ops.resample import Resample
from edgec.graph.ops.scatter_elements import ScatterElements
from edgec.graph.ops.scatter_nd import ScatterNd
from edgec.graph.ops.top_k import TopK
from edgec.graph.types import DType


def _indices(*shape: int) -> Integers:
    """In [-100, 100): most lie outside of any axis here, and must be moved inside."""
    return Integers(DType.I64, shape)


def _scatters(reduction: str) -> tuple[OpCase, ...]:
    elements, nd = ScatterElements(1, reduction), ScatterNd(reduction)
    return (
        case(f"rows_{reduction}", elements, Normal((5, 301)), _indices(3, 7), Normal((3, 7))),
        case(f"rows_{reduction}", nd, Normal((201, 3)), _indices(7, 1), Normal((7, 3))),
    )


def _suppression(name: str, limit: int, boxes: int, lowest: float, extent: float = 4.0) -> OpCase:
    """Boxes whose corners lie within a square of `extent`: many meet, some have no area. Scores repeat."""
    where = Uniform((3, boxes, 4), -extent, extent)
    thresholds = Uniform((), 0.3, 0.6), Uniform((), lowest, lowest + 0.01)
    return case(name, NonMaxSuppression(limit), where, Normal((3, 5, boxes), ties=True), *thresholds)


CASES = (
    case("rows", Gather(0), Normal((201, 5)), _indices(7)),
    case("columns", Gather(1), Normal((3, 199)), Integers(DType.I32, (5, 3))),
    case("middle", Gather(1), Normal((2, 90, 3)), _indices(2, 2)),
    case("one", Gather(0), Normal((7,)), _indices()),
    case("integers", Gather(0), Integers(DType.I64, (50,)), _indices(4)),
    case("rows", GatherElements(0), Normal((201, 5)), _indices(7, 3)),
    case("columns", GatherElements(1), Normal((3, 199)), _indices(3, 5)),
    case("middle", GatherElements(1), Normal((2, 90, 3)), Integers(DType.I32, (2, 4, 2))),
    case("one", GatherElements(0), Normal((1,)), _indices(1)),
    case("elements", GatherNd(), Normal((101, 103)), _indices(7, 5, 2)),
    case("slices", GatherNd(), Normal((101, 3)), _indices(5, 1)),
    case("batch", GatherNd(1), Normal((3, 90, 5)), _indices(3, 7, 1)),
    case("integers", GatherNd(), Integers(DType.I32, (50, 2)), _indices(2, 2)),
    case("embedding", GatherNdGrad((201, 37)), Normal((29, 37)), _indices(29, 1)),
    case("few_rows", GatherNdGrad((3, 5)), Normal((101, 5)), _indices(101, 1)),
    case("one_element_rows", GatherNdGrad((97,)), Normal((7, 3)), _indices(7, 3, 1)),
    case("wide_rows", GatherNdGrad((7, 3, 65)), Normal((5, 3, 65)), Integers(DType.I32, (5, 1))),
    case("coordinates", GatherNdGrad((11, 13)), Normal((7, 5)), _indices(7, 5, 2)),
    case("batch", GatherNdGrad((3, 90, 5), 1), Normal((3, 7, 5)), _indices(3, 7, 1)),
    *(found for reduction in ("none", "add", "mul", "min", "max") for found in _scatters(reduction)),
    case(
        "integers", ScatterElements(0, "max"), Integers(DType.I32, (9, 2)), _indices(4, 2), Integers(DType.I32, (4, 2))
    ),
    case("points", ScatterNd("add"), Normal((11, 13)), _indices(6, 2), Normal((6,))),
    case("rows", ArgMax(1), Normal((13, 29), ties=True)),
    case("rows_last", ArgMax(1, last=True), Normal((13, 29), ties=True)),
    case("columns_kept", ArgMax(0, keepdims=True), Normal((13, 7), ties=True)),
    case("channels", ArgMax(1), Normal((2, 5, 3, 4))),
    case("integers", ArgMax(1), Integers(DType.I32, (5, 7))),
    case("rows", ArgMin(1), Normal((13, 29), ties=True)),
    case("rows_last", ArgMin(1, last=True), Normal((13, 29), ties=True)),
    case("columns_kept", ArgMin(0, keepdims=True), Normal((13, 7), ties=True)),
    case("channels", ArgMin(1), Normal((2, 5, 3, 4))),
    case("rows", TopK(1, 5), Normal((13, 29), ties=True)),
    case("smallest", TopK(1, 4, largest=False), Normal((3, 37), ties=True)),
    case("all", TopK(0, 7), Normal((7, 3), ties=True)),
    case("integers", TopK(1, 3), Integers(DType.I32, (2, 11))),
    _suppression("some", 9, 101, 0.6),
    _suppression("all", 13, 13, -100.0),
    _suppression("none", 5, 7, 100.0),
    _suppression("one", 1, 1, -100.0),
    _suppression("tight", 29, 37, -1.0, 0.9),
    case("rows", CumSum(1), Normal((13, 29))),
    case("exclusive", CumSum(0, exclusive=True), Normal((13, 7))),
    case("reverse", CumSum(1, reverse=True), Normal((2, 5, 3, 4))),
    case("integers", CumSum(0, True, True), Integers(DType.I32, (11,))),
    case("rows", CumProd(1), Normal((13, 29))),
    case("exclusive", CumProd(0, exclusive=True), Normal((13, 7))),
    case("reverse", CumProd(1, reverse=True), Normal((2, 5, 3, 4))),
    case("both", CumProd(0, True, True), Normal((11,))),
    case("rows", CumProdGrad(1), Normal((13, 29)), Normal((13, 29))),
    case("exclusive", CumProdGrad(0, exclusive=True), Normal((13, 7)), Normal((13, 7), ties=True)),
    case("reverse", CumProdGrad(1, reverse=True), Normal((2, 5, 3, 4)), Normal((2, 5, 3, 4), ties=True)),
    case("both", CumProdGrad(0, True, True), Normal((11,)), Normal((11,))),
    case("prime", ReduceMin((1,)), Normal((13, 29))),
    case("spatial", ReduceMin((2, 3), keepdims=True), Normal((2, 37, 5, 7))),
    case("integers", ReduceMin((1,)), Integers(DType.I32, (5, 7))),
    case("outer", ReduceMin((0, 2)), Normal((3, 4, 5))),
    case("prime", ReduceProd((1,)), Normal((13, 29))),
    case("spatial", ReduceProd((2, 3), keepdims=True), Normal((2, 37, 5, 7))),
    case("integers", ReduceProd((1,)), Integers(DType.I32, (5, 3))),
    case("none", ReduceProd(()), Normal((3, 4))),
    case("rows", Resample(0), Normal((101, 3)), Integers(DType.I32, (7, 3)), Normal((7, 3))),
    case("columns", Resample(3), Normal((1, 2, 3, 151)), _indices(33, 2), Normal((33, 2))),
    case("one_tap", Resample(2), Normal((1, 3, 57, 5)), Integers(DType.I32, (9, 1)), Normal((9, 1))),
    case("one", Resample(0), Normal((1,)), Integers(DType.I32, (1, 1)), Normal((1, 1))),
)
