"""Models written twice, as a float64 graph and in torch, so that whole training steps can be compared to 1e-10.

Each is alive: weights are He-normal, statistics and affine parameters of norms are drawn, no gradient vanishes.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch.nn import functional as F

from edgec.graph.ir import Value
from edgec.graph.ops import (
    Abs,
    Add,
    AvgPool2d,
    BroadcastTo,
    Clip,
    Concat,
    Div,
    Erf,
    Exp,
    HardSigmoid,
    HardSwish,
    Less,
    Log,
    MatMul,
    Maximum,
    MaxPool2d,
    Minimum,
    Mul,
    Neg,
    Pad,
    ReduceMax,
    ReduceMean,
    ReduceSum,
    Relu,
    Reshape,
    Sigmoid,
    Sin,
    Slice,
    Softmax,
    Sqrt,
    Sub,
    Tanh,
    Transpose,
    Where,
)
from edgec.tools.testing.train_cases_tokens import coordinate_net, expert_mixture, segmenter, sentence_encoder
from edgec.tools.testing.twins import Build, Twins, Weights


def hard_sigmoid(x: torch.Tensor) -> torch.Tensor:
    """torch's own computes with 1/6 rounded to f32, also in float64."""
    return (x / 6 + 0.5).clamp(0, 1)


def hard_swish(x: torch.Tensor) -> torch.Tensor:
    return x * hard_sigmoid(x)


def small_cnn(seed: int = 0) -> Twins:
    """Two convolutions with biases, relu, maximum and average pools, a dense layer, a final softmax."""
    b = Build(np.random.default_rng(seed))
    x = b.conv("conv1", b.input(1, 2, 9, 8), 4, 3, bias=True, pads=(1, 1, 1, 1))
    x = b(MaxPool2d((2, 2), (2, 2)), b(Relu(), x))
    x = b(Relu(), b.conv("conv2", x, 6, 3, bias=True, pads=(0, 1, 1, 0)))
    x = b(AvgPool2d((2, 2), pads=(1, 0, 0, 1)), x)
    x = b(Reshape((1, x.type.size)), x)
    module = b.finish(b(Softmax(1), b.dense("fc", x, 5)))

    def forward(w: Weights, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(torch.relu(F.conv2d(x, w["conv1.weight"], w["conv1.bias"], padding=1)), 2)
        x = torch.relu(F.conv2d(F.pad(x, (1, 0, 0, 1)), w["conv2.weight"], w["conv2.bias"]))
        padded, ones = F.pad(x, (0, 1, 1, 0)), F.pad(torch.ones_like(x), (0, 1, 1, 0))
        x = F.avg_pool2d(padded, 2, 1) / F.avg_pool2d(ones, 2, 1)
        return x.flatten(1) @ w["fc.weight"].T + w["fc.bias"]

    return Twins(module, forward, (2, 9, 8), 5)


def separable_net(seed: int = 0) -> Twins:
    """PP-LCNet in small: depthwise-separable blocks, norms in all their places, squeeze-excite, a residual add."""
    b = Build(np.random.default_rng(seed))
    x = b(HardSwish(), b.norm("bn0", b.conv("stem", b.input(1, 3, 11, 11), 8, 3, strides=(2, 2), pads=(1, 1, 1, 1))))
    skip = x
    x = b(HardSwish(), b.norm("bn1", b.conv("dw", x, 8, 3, groups=8, pads=(1, 1, 1, 1))))
    gate = b(Relu(), b.conv("squeeze", b(ReduceMean((2, 3), True), x), 4, 1, bias=True))
    gate = b(HardSigmoid(1 / 6, 0.5), b.conv("excite", gate, 8, 1, bias=True))
    x = b.norm("bn2", b.conv("pw", b(Mul(), x, gate), 8, 1, bias=True))
    x = b(Clip(0.0, 6.0), b.norm("bn3", b(Add(), x, skip)))
    x = b.conv("dw2", x, 16, 5, groups=8, strides=(2, 2), pads=(2, 2, 2, 2), dilations=(1, 1))
    x = b(HardSwish(), b.norm("bn4", x))
    x = b(Reshape((1, 16)), b(ReduceMean((2, 3)), x))
    x = b(Relu(), b.norm("bn5", b.dense("fc1", x, 6)))
    module = b.finish(b.dense("fc2", x, 4))

    def network(w: Weights, x: torch.Tensor, **mode: object) -> torch.Tensor:
        def norm(name: str, x: torch.Tensor) -> torch.Tensor:
            parts = (w[f"{name}.{part}"] for part in ("mean", "variance", "gamma", "beta"))
            return F.batch_norm(x, *parts, eps=1e-3, **mode)

        skip = x = hard_swish(norm("bn0", F.conv2d(x, w["stem.weight"], stride=2, padding=1)))
        x = hard_swish(norm("bn1", F.conv2d(x, w["dw.weight"], padding=1, groups=8)))
        gate = torch.relu(F.conv2d(x.mean((2, 3), keepdim=True), w["squeeze.weight"], w["squeeze.bias"]))
        x = x * hard_sigmoid(F.conv2d(gate, w["excite.weight"], w["excite.bias"]))
        x = norm("bn2", F.conv2d(x, w["pw.weight"], w["pw.bias"]))
        x = F.relu6(norm("bn3", x + skip))
        x = hard_swish(norm("bn4", F.conv2d(x, w["dw2.weight"], stride=2, padding=2, groups=8)))
        x = torch.relu(norm("bn5", F.linear(x.mean((2, 3)), w["fc1.weight"], w["fc1.bias"])))
        return F.linear(x, w["fc2.weight"], w["fc2.bias"])

    train_mode = partial(network, training=True, momentum=0.1)
    return Twins(module, network, (3, 11, 11), 4, train_mode)


def token_mixer(seed: int = 0) -> Twins:
    """What convolutional nets leave out: attention between tokens, a class token, padding, slices, broadcasts."""
    b = Build(np.random.default_rng(seed))
    x = b.input(1, 5, 6)
    token = b(BroadcastTo((1, 1, 6)), b.param("token", b.rng.standard_normal((1, 1, 6))))
    x = b(Transpose((1, 0, 2)), b(Concat(1), token, x))  # tokens first, as torch's attention has them
    q, v = b.dense("q", x, 8), b.dense("v", x, 8)
    k = b(MatMul(), x, b.weight("k.weight", 6, 8))  # a bias here would cancel in the softmax

    def heads(y: Value, perm: tuple[int, ...]) -> Value:
        return b(Transpose(perm), b(Reshape((6, 2, 4)), y))

    scores = b(MatMul(), heads(q, (1, 0, 2)), heads(k, (1, 2, 0)))
    scale = b.graph.constant(np.asarray(0.5), "half")
    mixed = b(MatMul(), b(Softmax(2), b(Mul(), scores, scale)), heads(v, (1, 0, 2)))
    x = b(Transpose((1, 0, 2)), b(Reshape((6, 1, 8)), b(Transpose((1, 0, 2)), mixed)))
    centred = b(Sub(), x, b(ReduceMean((2,), True), x))
    spread = b(ReduceSum((2,), True), b(Mul(), centred, centred))
    x = b(Div(), centred, b(Add(), spread, b.graph.constant(np.asarray(0.1), "epsilon")))
    x = b(Mul(), b(Sigmoid(), x), b(Exp(), b(Mul(), x, scale)))
    x = b(Pad((0, 0, 1), (0, 0, 1), 0.25), x)
    x = b(Concat(1), b(Slice((0, 0, 0), (1, 5, 10), (1, 2, 3)), x), b(Slice((0, 1, 1), (1, 4, 5), (1, 1, 1)), x))
    module = b.finish(b.dense("fc", b(ReduceMax((1,)), x), 4))

    def forward(w: Weights, x: torch.Tensor) -> torch.Tensor:
        x = torch.cat([w["token"].expand(len(x), -1, -1), x], 1)
        q, v = (F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"]) for name in "qv")
        q, k, v = (y.reshape(-1, 6, 2, 4).transpose(1, 2) for y in (q, x @ w["k.weight"], v))
        x = (torch.softmax(q @ k.mT * 0.5, -1) @ v).transpose(1, 2).reshape(-1, 6, 8)
        centred = x - x.mean(2, keepdim=True)
        x = centred / ((centred * centred).sum(2, keepdim=True) + 0.1)
        x = torch.sigmoid(x) * torch.exp(x * 0.5)
        x = F.pad(x, (1, 1), value=0.25)
        x = torch.cat([x[:, :5:2, ::3], x[:, 1:4, 1:5]], 1)
        return F.linear(x.amax(1), w["fc.weight"], w["fc.bias"])

    return Twins(module, forward, (5, 6), 4)


def gated_mlp(seed: int = 0) -> Twins:
    """Activations and gates of transformers, written in parts: exact gelu, softplus, tanh, sine, choices of two."""
    b = Build(np.random.default_rng(seed))

    def number(value: float) -> Value:
        return b.graph.constant(np.asarray(value), "number")

    x = b.input(1, 7)
    p, q = b.dense("p", x, 9), b.dense("q", x, 9)
    gelu = b(Mul(), b(Mul(), p, number(0.5)), b(Add(), number(1.0), b(Erf(), b(Mul(), p, number(0.5**0.5)))))
    soft = b(Log(), b(Add(), number(1.0), b(Exp(), b(Neg(), b(Abs(), q)))))
    soft = b(Add(), b(Maximum(), q, number(0.0)), soft)
    bounded = b(Minimum(), b(Tanh(), soft), b(Sin(), gelu))
    chosen = b(Where(), b(Less(), p, q), b(Mul(), gelu, soft), b(Sqrt(), b(Add(), b(Abs(), bounded), number(0.1))))
    module = b.finish(b.dense("fc", b(Concat(1), bounded, b(Maximum(), chosen, gelu)), 4))

    def forward(w: Weights, x: torch.Tensor) -> torch.Tensor:
        p, q = (F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"]) for name in "pq")
        gelu, soft = F.gelu(p), F.softplus(q, threshold=1e9)
        bounded = torch.minimum(torch.tanh(soft), torch.sin(gelu))
        chosen = torch.where(p < q, gelu * soft, torch.sqrt(bounded.abs() + 0.1))
        return F.linear(torch.cat([bounded, torch.maximum(chosen, gelu)], 1), w["fc.weight"], w["fc.bias"])

    return Twins(module, forward, (7,), 4)


CASES = {
    "small_cnn": small_cnn,
    "separable_net": separable_net,
    "token_mixer": token_mixer,
    "gated_mlp": gated_mlp,
    "sentence_encoder": sentence_encoder,
    "segmenter": segmenter,
    "coordinate_net": coordinate_net,
    "expert_mixture": expert_mixture,
}
