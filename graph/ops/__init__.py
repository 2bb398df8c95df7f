"""The closed set of ops, one file each. `ALL_OPS` is the list: explicit, ordered, no logic."""

from edgec.graph.ops.abs import Abs
from edgec.graph.ops.accumulate import Accumulate
from edgec.graph.ops.acos import Acos
from edgec.graph.ops.acosh import Acosh
from edgec.graph.ops.adam_update import AdamUpdate
from edgec.graph.ops.add import Add
from edgec.graph.ops.arg_max import ArgMax
from edgec.graph.ops.arg_min import ArgMin
from edgec.graph.ops.asin import Asin
from edgec.graph.ops.asinh import Asinh
from edgec.graph.ops.atan import Atan
from edgec.graph.ops.atanh import Atanh
from edgec.graph.ops.avg_pool2d import AvgPool2d
from edgec.graph.ops.avg_pool2d_grad import AvgPool2dGrad
from edgec.graph.ops.base import Op
from edgec.graph.ops.batch_norm import BatchNorm
from edgec.graph.ops.batch_norm_train import BatchNormTrain
from edgec.graph.ops.bce_logits import BceLogits
from edgec.graph.ops.bias_correction import BiasCorrection
from edgec.graph.ops.bit_and import BitAnd
from edgec.graph.ops.bit_or import BitOr
from edgec.graph.ops.bit_xor import BitXor
from edgec.graph.ops.broadcast_to import BroadcastTo
from edgec.graph.ops.cast import Cast
from edgec.graph.ops.ceil import Ceil
from edgec.graph.ops.clip import Clip
from edgec.graph.ops.clip_grad import ClipGrad
from edgec.graph.ops.compress import Compress
from edgec.graph.ops.concat import Concat
from edgec.graph.ops.conv2d import Conv2d
from edgec.graph.ops.conv2d_input_grad import Conv2dInputGrad
from edgec.graph.ops.conv2d_weight_grad import Conv2dWeightGrad
from edgec.graph.ops.cos import Cos
from edgec.graph.ops.cosh import Cosh
from edgec.graph.ops.cum_prod import CumProd
from edgec.graph.ops.cum_prod_grad import CumProdGrad
from edgec.graph.ops.cum_sum import CumSum
from edgec.graph.ops.decompress import Decompress
from edgec.graph.ops.div import Div
from edgec.graph.ops.dropout import Dropout
from edgec.graph.ops.equal import Equal
from edgec.graph.ops.erf import Erf
from edgec.graph.ops.exp import Exp
from edgec.graph.ops.floor import Floor
from edgec.graph.ops.fmod import Fmod
from edgec.graph.ops.gate_by_bits import GateByBits
from edgec.graph.ops.gather import Gather
from edgec.graph.ops.gather_elements import GatherElements
from edgec.graph.ops.gather_nd import GatherNd
from edgec.graph.ops.gather_nd_grad import GatherNdGrad
from edgec.graph.ops.hard_sigmoid import HardSigmoid
from edgec.graph.ops.hard_sigmoid_grad import HardSigmoidGrad
from edgec.graph.ops.hard_swish import HardSwish
from edgec.graph.ops.hard_swish_grad import HardSwishGrad
from edgec.graph.ops.inside_bits import InsideBits
from edgec.graph.ops.layer_norm import LayerNorm
from edgec.graph.ops.layer_norm_grad import LayerNormGrad
from edgec.graph.ops.less import Less
from edgec.graph.ops.less_equal import LessEqual
from edgec.graph.ops.lion_update import LionUpdate
from edgec.graph.ops.log import Log
from edgec.graph.ops.matmul import MatMul
from edgec.graph.ops.max_pool2d import MaxPool2d
from edgec.graph.ops.max_pool2d_grad import MaxPool2dGrad
from edgec.graph.ops.max_pool2d_positions import MaxPool2dPositions
from edgec.graph.ops.maximum import Maximum
from edgec.graph.ops.minimum import Minimum
from edgec.graph.ops.mod import Mod
from edgec.graph.ops.moments import Moments
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.neg import Neg
from edgec.graph.ops.non_max_suppression import NonMaxSuppression
from edgec.graph.ops.norm_param_grad import NormParamGrad
from edgec.graph.ops.pad import Pad
from edgec.graph.ops.pow import Pow
from edgec.graph.ops.reduce_max import ReduceMax
from edgec.graph.ops.reduce_mean import ReduceMean
from edgec.graph.ops.reduce_min import ReduceMin
from edgec.graph.ops.reduce_prod import ReduceProd
from edgec.graph.ops.reduce_sum import ReduceSum
from edgec.graph.ops.relu import Relu
from edgec.graph.ops.relu_grad import ReluGrad
from edgec.graph.ops.resample import Resample
from edgec.graph.ops.reshape import Reshape
from edgec.graph.ops.rms_norm import RmsNorm
from edgec.graph.ops.rms_norm_grad import RmsNormGrad
from edgec.graph.ops.round import Round
from edgec.graph.ops.scatter_elements import ScatterElements
from edgec.graph.ops.scatter_nd import ScatterNd
from edgec.graph.ops.sgd_update import SgdUpdate
from edgec.graph.ops.shift_left import ShiftLeft
from edgec.graph.ops.shift_right import ShiftRight
from edgec.graph.ops.sigmoid import Sigmoid
from edgec.graph.ops.sigmoid_grad import SigmoidGrad
from edgec.graph.ops.sign import Sign
from edgec.graph.ops.sin import Sin
from edgec.graph.ops.sinh import Sinh
from edgec.graph.ops.slice import Slice
from edgec.graph.ops.softmax import Softmax
from edgec.graph.ops.softmax_cross_entropy import SoftmaxCrossEntropy
from edgec.graph.ops.sqrt import Sqrt
from edgec.graph.ops.sub import Sub
from edgec.graph.ops.tan import Tan
from edgec.graph.ops.tanh import Tanh
from edgec.graph.ops.top_k import TopK
from edgec.graph.ops.transpose import Transpose
from edgec.graph.ops.where import Where

ALL_OPS: tuple[type[Op], ...] = (
    Conv2d,
    Conv2dInputGrad,
    Conv2dWeightGrad,
    MatMul,
    Add,
    Sub,
    Mul,
    Decompress,
    Div,
    Relu,
    Sigmoid,
    Exp,
    HardSwish,
    Clip,
    HardSigmoid,
    ReluGrad,
    SigmoidGrad,
    ClipGrad,
    InsideBits,
    GateByBits,
    HardSigmoidGrad,
    HardSwishGrad,
    MaxPool2d,
    MaxPool2dGrad,
    MaxPool2dPositions,
    AvgPool2d,
    AvgPool2dGrad,
    BatchNorm,
    BatchNormTrain,
    Moments,
    NormParamGrad,
    Dropout,
    Reshape,
    Transpose,
    Compress,
    Concat,
    Slice,
    Pad,
    BroadcastTo,
    ReduceSum,
    ReduceMean,
    ReduceMax,
    ReduceMin,
    ReduceProd,
    ArgMax,
    ArgMin,
    TopK,
    NonMaxSuppression,
    CumSum,
    CumProd,
    CumProdGrad,
    Gather,
    GatherElements,
    GatherNd,
    GatherNdGrad,
    ScatterElements,
    ScatterNd,
    Resample,
    LayerNorm,
    LayerNormGrad,
    RmsNorm,
    RmsNormGrad,
    Softmax,
    SoftmaxCrossEntropy,
    BceLogits,
    SgdUpdate,
    AdamUpdate,
    Accumulate,
    LionUpdate,
    BiasCorrection,
    Neg,
    Abs,
    Sign,
    Floor,
    Ceil,
    Round,
    Sqrt,
    Log,
    Erf,
    Tanh,
    Sin,
    Cos,
    Tan,
    Asin,
    Acos,
    Atan,
    Sinh,
    Cosh,
    Asinh,
    Acosh,
    Atanh,
    Pow,
    Mod,
    Fmod,
    Minimum,
    Maximum,
    Equal,
    Less,
    LessEqual,
    BitAnd,
    BitOr,
    BitXor,
    ShiftLeft,
    ShiftRight,
    Where,
    Cast,
)
