"""The closed set of ops, one file each. `ALL_OPS` is the list: explicit, ordered, no logic."""

from edgec.graph.ops.add import Add
from edgec.graph.ops.avg_pool2d import AvgPool2d
from edgec.graph.ops.avg_pool2d_grad import AvgPool2dGrad
from edgec.graph.ops.base import Op
from edgec.graph.ops.batch_norm import BatchNorm
from edgec.graph.ops.broadcast_to import BroadcastTo
from edgec.graph.ops.clip import Clip
from edgec.graph.ops.clip_grad import ClipGrad
from edgec.graph.ops.concat import Concat
from edgec.graph.ops.conv2d import Conv2d
from edgec.graph.ops.conv2d_input_grad import Conv2dInputGrad
from edgec.graph.ops.conv2d_weight_grad import Conv2dWeightGrad
from edgec.graph.ops.div import Div
from edgec.graph.ops.exp import Exp
from edgec.graph.ops.hard_sigmoid import HardSigmoid
from edgec.graph.ops.hard_sigmoid_grad import HardSigmoidGrad
from edgec.graph.ops.hard_swish import HardSwish
from edgec.graph.ops.hard_swish_grad import HardSwishGrad
from edgec.graph.ops.matmul import MatMul
from edgec.graph.ops.max_pool2d import MaxPool2d
from edgec.graph.ops.max_pool2d_grad import MaxPool2dGrad
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.pad import Pad
from edgec.graph.ops.reduce_max import ReduceMax
from edgec.graph.ops.reduce_mean import ReduceMean
from edgec.graph.ops.reduce_sum import ReduceSum
from edgec.graph.ops.relu import Relu
from edgec.graph.ops.relu_grad import ReluGrad
from edgec.graph.ops.reshape import Reshape
from edgec.graph.ops.sgd_update import SgdUpdate
from edgec.graph.ops.sigmoid import Sigmoid
from edgec.graph.ops.sigmoid_grad import SigmoidGrad
from edgec.graph.ops.slice import Slice
from edgec.graph.ops.softmax import Softmax
from edgec.graph.ops.softmax_cross_entropy import SoftmaxCrossEntropy
from edgec.graph.ops.softmax_cross_entropy_grad import SoftmaxCrossEntropyGrad
from edgec.graph.ops.sub import Sub
from edgec.graph.ops.transpose import Transpose

ALL_OPS: tuple[type[Op], ...] = (
    Conv2d,
    Conv2dInputGrad,
    Conv2dWeightGrad,
    MatMul,
    Add,
    Sub,
    Mul,
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
    HardSigmoidGrad,
    HardSwishGrad,
    MaxPool2d,
    MaxPool2dGrad,
    AvgPool2d,
    AvgPool2dGrad,
    BatchNorm,
    Reshape,
    Transpose,
    Concat,
    Slice,
    Pad,
    BroadcastTo,
    ReduceSum,
    ReduceMean,
    ReduceMax,
    Softmax,
    SoftmaxCrossEntropy,
    SoftmaxCrossEntropyGrad,
    SgdUpdate,
)
