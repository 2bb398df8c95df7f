"""Cases of softmax and of the losses."""

from cases.op_case import Normal, Probabilities, Uniform, case
from edgec.graph.ops.bce_logits import BceLogits
from edgec.graph.ops.softmax import Softmax
from edgec.graph.ops.softmax_cross_entropy import SoftmaxCrossEntropy

CASES = (
    case("rows", Softmax(1), Normal((5, 10), scale=4.0)),
    case("wide", Softmax(1), Normal((3, 1000), scale=4.0)),
    case("narrow", Softmax(1), Normal((70, 3), scale=4.0)),
    case("last_of_three", Softmax(2), Normal((2, 3, 17))),
    case("channels", Softmax(1), Normal((2, 5, 3, 4))),
    case("one_class", Softmax(1), Normal((3, 1))),
    case("prime", Softmax(1), Normal((13, 29), scale=30.0)),
    case("batch", SoftmaxCrossEntropy(), Normal((8, 10), scale=4.0), Probabilities(8, 10)),
    case("one", SoftmaxCrossEntropy(), Normal((1, 37), scale=30.0), Probabilities(1, 37)),
    case("many", SoftmaxCrossEntropy(), Normal((64, 100), scale=4.0), Probabilities(64, 100)),
    case("prime", SoftmaxCrossEntropy(), Normal((13, 29), scale=4.0), Probabilities(13, 29)),
    case("any_targets", SoftmaxCrossEntropy(), Normal((13, 29), scale=4.0), Normal((13, 29), ties=True)),
    case("one", BceLogits(), Normal((1, 1), scale=30.0), Uniform((1, 1), 0.0, 1.0)),
    case("row", BceLogits(), Normal((3,), scale=30.0), Uniform((3,), 0.0, 1.0)),
    case("wide", BceLogits(), Normal((8, 128), scale=30.0), Uniform((8, 128), 0.0, 1.0)),
    case("prime", BceLogits(), Normal((13, 29), scale=30.0), Uniform((13, 29), 0.0, 1.0)),
)
