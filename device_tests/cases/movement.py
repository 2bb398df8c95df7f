"""Cases of ops that only move data, and of reductions."""

from cases.op_case import Integers, Normal, case
from edgec.graph.ops.broadcast_to import BroadcastTo
from edgec.graph.ops.concat import Concat
from edgec.graph.ops.pad import Pad
from edgec.graph.ops.reduce_max import ReduceMax
from edgec.graph.ops.reduce_mean import ReduceMean
from edgec.graph.ops.reduce_sum import ReduceSum
from edgec.graph.ops.reshape import Reshape
from edgec.graph.ops.slice import Slice
from edgec.graph.ops.transpose import Transpose
from edgec.graph.types import DType

CASES = (
    case("flatten", Reshape((2, 105)), Normal((2, 5, 3, 7))),
    case("regroup", Reshape((15, 2, 7)), Normal((2, 5, 3, 7))),
    case("to_image", Reshape((2, 5, 1, 1)), Normal((2, 5))),
    case("nchw_to_nhwc", Transpose((0, 2, 3, 1)), Normal((2, 19, 5, 7))),
    case("matrix", Transpose((1, 0)), Normal((37, 21))),
    case("labels", Transpose((1, 0)), Integers(DType.I64, (3, 4))),
    case("labels", Reshape((6,)), Integers(DType.I64, (6, 1))),
    case("one", Reshape((1, 1, 1, 1)), Normal(())),
    case("nhwc_to_nchw", Transpose((0, 3, 1, 2)), Normal((1, 5, 7, 13))),
    case("outer_two", Transpose((1, 0, 2)), Normal((3, 11, 5))),
    case("channels", Concat(1), Normal((2, 5, 3, 4)), Normal((2, 8, 3, 4)), Normal((2, 1, 3, 4))),
    case("rows", Concat(0), Normal((2, 5)), Normal((3, 5))),
    case("columns", Concat(1), Normal((7, 1)), Normal((7, 13))),
    case("labels", Concat(0), Integers(DType.I64, (3,)), Integers(DType.I64, (1,))),
    case("labels", Slice((2,), (7,), (2,)), Integers(DType.I64, (11,))),
    case("channels", Slice((0, 3, 0, 0), (1, 16, 5, 3), (1, 1, 1, 1)), Normal((1, 17, 5, 3))),
    case("window", Slice((0, 1, 0, 2), (2, 4, 3, 7), (1, 1, 2, 1)), Normal((2, 5, 3, 7))),
    case("steps", Slice((1, 0), (9, 10), (3, 2)), Normal((9, 10))),
    case("border", Pad((0, 0, 1, 2), (0, 0, 1, 0)), Normal((2, 5, 3, 7))),
    case("value", Pad((1,), (2,), 3.5), Normal((6,))),
    case("same_3x3", Pad((0, 0, 1, 1), (0, 0, 1, 1)), Normal((1, 13, 5, 3))),
    case("integers", Pad((0, 2), (1, 0)), Integers(DType.I32, (3, 5))),
    case("rows", BroadcastTo((7, 13)), Normal((13,))),
    case("columns", BroadcastTo((13, 7)), Normal((13, 1))),
    case("channels", BroadcastTo((2, 5, 3, 7)), Normal((5, 1, 1))),
    case("scalar", BroadcastTo((4, 3)), Normal(())),
    case("spatial", ReduceSum((2, 3)), Normal((2, 37, 5, 7))),
    case("spatial_kept", ReduceMean((2, 3), keepdims=True), Normal((2, 37, 5, 7))),
    case("per_channel", ReduceSum((0, 2, 3)), Normal((3, 21, 5, 7))),
    case("per_channel_large", ReduceSum((0, 2, 3)), Normal((4, 24, 33, 31))),
    case("rows", ReduceSum((1,), keepdims=True), Normal((9, 70))),
    case("columns", ReduceSum((0,)), Normal((70, 9))),
    case("all", ReduceSum((0, 1)), Normal((30, 31))),
    case("one", ReduceSum((0,)), Normal((1,))),
    case("prime", ReduceSum((2, 3)), Normal((1, 13, 11, 17))),
    case("prime", ReduceMean((2, 3)), Normal((1, 13, 11, 17))),
    case("per_channel", ReduceMean((0, 2, 3)), Normal((3, 7, 5, 11))),
    case("prime", ReduceMax((1,)), Normal((13, 29))),
    case("integers", ReduceMax((1,)), Integers(DType.I32, (5, 7))),
    case("integers", ReduceSum((0,)), Integers(DType.I32, (5, 7))),
    case("none", ReduceSum(()), Normal((3, 4))),
    case("middle", ReduceMean((1,)), Normal((3, 6, 5))),
    case("rows", ReduceMax((1,)), Normal((9, 70))),
    case("spatial", ReduceMax((2, 3), keepdims=True), Normal((2, 37, 5, 7))),
    case("outer", ReduceMax((0, 2)), Normal((3, 4, 5))),
)
