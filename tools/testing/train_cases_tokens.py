"""More twins: an encoder of sentences, a segmenter, a network of coordinates and a mixture of experts."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from edgec.graph.ir import Value
from edgec.graph.ops import (
    Abs,
    Acos,
    Acosh,
    Add,
    Asin,
    Asinh,
    Atan,
    Atanh,
    Cast,
    Clip,
    Concat,
    Conv2dInputGrad,
    Cos,
    Cosh,
    CumProd,
    CumSum,
    Fmod,
    Gather,
    GatherElements,
    GatherNd,
    LayerNorm,
    MatMul,
    Mod,
    Moments,
    Mul,
    Pow,
    ReduceMean,
    ReduceMin,
    ReduceProd,
    Relu,
    Resample,
    Reshape,
    RmsNorm,
    ScatterElements,
    ScatterNd,
    Sigmoid,
    Sin,
    Sinh,
    Softmax,
    Sub,
    Tan,
    Tanh,
    TopK,
)
from edgec.tools.testing.twins import Build, Twins, Weights


def sentence_encoder(seed: int = 0) -> Twins:
    """MiniLM in small: embeddings of words and positions, layer and rms norms, attention, statistics of all tokens."""
    b = Build(np.random.default_rng(seed))
    words, width, length = 11, 8, 5

    def number(value: float) -> Value:
        return b.graph.constant(np.asarray(value), "number")

    x = b.input(1, length)
    ids = b(Cast("i64"), b(Clip(0.0, words - 1.0), b(Mul(), b(Abs(), x), number(5.0))))
    table = b.param("words", b.rng.standard_normal((words, width)))
    # Rows 0 and 2 of the positions are adapted: written over a table of their own.
    base, adapted = b.param("positions", b.rng.standard_normal((4, width))), b.vector("adapted", width)
    rows = b.graph.constant(np.array([[2], [0]]), "rows")
    positions = b(ScatterNd(), base, rows, b(Reshape((2, width)), b(Concat(0), adapted, b.vector("first", width))))
    places = b.graph.constant(np.array([[0], [1], [2], [3], [1]]), "places")
    h = b(Add(), b(Gather(0), table, ids), b(GatherNd(), positions, places))
    gamma, beta = b.vector("norm.gamma", width, 0.5, 1.5), b.vector("norm.beta", width)
    h, _, _ = b.graph.emit(LayerNorm(2, 1e-3), h, gamma, beta)
    q, k, v = (b(MatMul(), h, b.weight(f"{name}.weight", width, width)) for name in "qkv")
    mixed = b(MatMul(), b(Softmax(2), b(Mul(), b(MatMul(transpose_b=True), q, k), number(0.3))), v)
    h, _ = b.graph.emit(RmsNorm(2, 1e-3), b(Add(), h, mixed), b.vector("rms.gamma", width, 0.5, 1.5))
    narrow = b(Cast("f64"), b(Cast("f32"), b.dense("narrow", h, 6)))
    first = b(Gather(1), narrow, b.graph.constant(np.array(0), "zero"))
    mean, variance = b.graph.emit(Moments((1,)), narrow)
    module = b.finish(b.dense("fc", b(Concat(1), first, mean, variance), 4))

    def forward(w: Weights, x: torch.Tensor) -> torch.Tensor:
        ids = (x.abs() * 5).clamp(0, words - 1).long()
        positions = w["positions"].clone()
        positions[[2, 0]] = torch.stack([w["adapted"], w["first"]])
        h = w["words"][ids] + positions[[0, 1, 2, 3, 1]]
        h = F.layer_norm(h, (width,), w["norm.gamma"], w["norm.beta"], 1e-3)
        q, k, v = (h @ w[f"{name}.weight"] for name in "qkv")
        h = F.rms_norm(h + torch.softmax(q @ k.mT * 0.3, -1) @ v, (width,), w["rms.gamma"], 1e-3)
        narrow = F.linear(h, w["narrow.weight"], w["narrow.bias"]).float().double()
        pooled = torch.cat([narrow[:, 0], narrow.mean(1), narrow.var(1, correction=0)], 1)
        return F.linear(pooled, w["fc.weight"], w["fc.bias"])

    return Twins(module, forward, (length,), 4)


def segmenter(seed: int = 0) -> Twins:
    """U-Net in small: group norm, a transposed and a dilated grouped convolution, bilinear upsampling, a skip."""
    b = Build(np.random.default_rng(seed))
    x = b.input(1, 2, 6, 6)
    skip = b(Relu(), b.conv("down", x, 4, 3, bias=True, pads=(1, 1, 1, 1)))
    rows, _, _ = b.graph.emit(LayerNorm(2, 1e-3), b(Reshape((1, 2, 72)), skip))
    scale, shift = (b(Reshape((4, 1, 1)), b.vector(f"norm.{n}", 4, 0.5, 1.5)) for n in ("gamma", "beta"))
    y = b(Add(), b(Mul(), b(Reshape((1, 4, 6, 6)), rows), scale), shift)
    y = b(Relu(), b.conv("deep", y, 6, 3, strides=(2, 2), pads=(2, 2, 2, 2), dilations=(2, 2), groups=2))
    up = Conv2dInputGrad(strides=(2, 2), pads=(1, 1, 0, 0), groups=2, input_size=(6, 6))
    y = b(up, y, b.weight("up.weight", 6, 2, 3, 3))
    indices = b.graph.constant(np.array([[0, 0], [0, 1], [1, 2], [2, 3], [3, 4], [4, 5], [5, 5]]), "indices")
    weights = b.graph.constant(np.array([[1, 0], [0.75, 0.25], *[[0.5, 0.5]] * 3, [0.25, 0.75], [0, 1]]), "weights")
    y = b(Resample(2), b(Concat(1), y, skip), indices, weights)
    # An upsampling whose weights are learned.
    y = b(Resample(3), y, indices, b.param("taps", b.rng.uniform(0.2, 0.8, (7, 2))))
    y = b.conv("out", y, 4, 1, bias=True)
    module = b.finish(b(Reshape((1, 4)), b(ReduceMean((2, 3)), y)))

    def forward(w: Weights, x: torch.Tensor) -> torch.Tensor:
        skip = torch.relu(F.conv2d(x, w["down.weight"], w["down.bias"], padding=1))
        y = F.group_norm(skip, 2, w["norm.gamma"], w["norm.beta"], 1e-3)
        y = torch.relu(F.conv2d(y, w["deep.weight"], stride=2, padding=2, dilation=2, groups=2))
        full = F.conv_transpose2d(y, w["up.weight"], stride=2, groups=2)  # uneven pads are cut off by hand
        y = torch.cat([full[:, :, 1:7, 1:7], skip], 1)
        table, taps = torch.tensor(indices.data), torch.tensor(weights.data)
        y = (y[:, :, table] * taps[:, :, None]).sum(3)
        y = (y[:, :, :, table] * w["taps"]).sum(4)
        return F.conv2d(y, w["out.weight"], w["out.bias"]).mean((2, 3))

    return Twins(module, forward, (2, 6, 6), 4)


def coordinate_net(seed: int = 0) -> Twins:
    """What networks over angles, rotations and spectra are made of: trigonometry, powers, remainders, products."""
    b = Build(np.random.default_rng(seed))

    def number(value: float) -> Value:
        return b.graph.constant(np.asarray(value), "number")

    x = b.input(1, 7)
    p, q = b.dense("p", x, 9), b.dense("q", x, 9)
    small, positive = b(Mul(), b(Tanh(), p), number(0.8)), b(Add(), b(Abs(), q), number(0.5))
    angles = b(Add(), b(Asin(), small), b(Mul(), b(Acos(), small), b(Atan(), q)))
    waves = b(Add(), b(Mul(), b(Cos(), p), b(Sin(), q)), b(Tan(), small))
    hyper = b(Add(), b(Sinh(), small), b(Mul(), b(Cosh(), small), b(Asinh(), q)))
    hyper = b(Add(), hyper, b(Mul(), b(Atanh(), small), b(Acosh(), b(Add(), positive, number(1.0)))))
    powers = b(Pow(), positive, b.vector("exponent", 9, 0.5, 2.0))
    rest = b(Add(), b(Mod(), q, b.vector("period", 9, 0.7, 1.3)), b(Fmod(), p, b.vector("step", 9, 0.7, 1.3)))
    decay = b(CumProd(1), b(Sigmoid(), p))
    total = b(CumSum(1, reverse=True), b(Mul(), decay, waves))
    gate = b(Reshape((1, 1)), b(ReduceProd((1,)), b(Add(), number(1.0), b(Mul(), small, number(0.3)))))
    low = b(ReduceMin((1,), True), hyper)
    parts = b(Concat(1), angles, waves, b(Mul(), hyper, gate), powers, rest, b(Sub(), total, low))
    module = b.finish(b.dense("fc", parts, 4))

    def forward(w: Weights, x: torch.Tensor) -> torch.Tensor:
        p, q = (F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"]) for name in "pq")
        small, positive = torch.tanh(p) * 0.8, q.abs() + 0.5
        angles = torch.asin(small) + torch.acos(small) * torch.atan(q)
        waves = torch.cos(p) * torch.sin(q) + torch.tan(small)
        hyper = torch.sinh(small) + torch.cosh(small) * torch.asinh(q)
        hyper = hyper + torch.atanh(small) * torch.acosh(positive + 1)
        powers = positive ** w["exponent"]
        rest = torch.remainder(q, w["period"]) + torch.fmod(p, w["step"])
        total = (torch.sigmoid(p).cumprod(1) * waves).flip(1).cumsum(1).flip(1)
        gate = (1 + small * 0.3).prod(1, keepdim=True)
        low = hyper.amin(1, keepdim=True)
        parts = torch.cat([angles, waves, hyper * gate, powers, rest, total - low], 1)
        return F.linear(parts, w["fc.weight"], w["fc.bias"])

    return Twins(module, forward, (7,), 4)


def expert_mixture(seed: int = 0) -> Twins:
    """The best two of four experts: ranking, gates put back in their places, picked results."""
    b = Build(np.random.default_rng(seed))
    x = b.input(1, 6)
    scores = b.dense("router", x, 4)
    best, places = b.graph.emit(TopK(1, 2), scores)
    gates = b(Softmax(1), best)
    spread = b(ScatterElements(1), b(Mul(), scores, b.graph.constant(np.asarray(0.1), "tenth")), places, gates)
    experts = b(Tanh(), b(Reshape((1, 4, 3)), b.dense("experts", x, 12)))
    picked = b(GatherElements(1), b.dense("bonus", x, 4), places)
    mixed = b(Reshape((1, 3)), b(MatMul(), b(Reshape((1, 1, 4)), spread), experts))
    module = b.finish(b.dense("fc", b(Concat(1), mixed, b(Mul(), picked, gates)), 4))

    def forward(w: Weights, x: torch.Tensor) -> torch.Tensor:
        scores = F.linear(x, w["router.weight"], w["router.bias"])
        best, places = scores.topk(2, 1)
        gates = torch.softmax(best, 1)
        spread = (scores * 0.1).scatter(1, places, gates)
        experts = torch.tanh(F.linear(x, w["experts.weight"], w["experts.bias"]).reshape(-1, 4, 3))
        picked = F.linear(x, w["bonus.weight"], w["bonus.bias"]).gather(1, places)
        mixed = (spread[:, None] @ experts)[:, 0]
        return F.linear(torch.cat([mixed, picked * gates], 1), w["fc.weight"], w["fc.bias"])

    return Twins(module, forward, (6,), 4)
