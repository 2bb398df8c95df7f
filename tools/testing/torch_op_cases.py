"""Operators of torch as functions or modules with arguments: what computes and moves elements."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

_GENERATOR = torch.Generator().manual_seed(0)


def t(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=_GENERATOR)


def norm(channels: int | tuple[int, ...], kind: type[nn.Module] = nn.BatchNorm2d, **options: object) -> nn.Module:
    """Away from the identity."""
    return affine(kind(channels, **options))


def affine(layer: nn.Module) -> nn.Module:
    with torch.no_grad():
        for tensor in [*layer.parameters(), *layer.buffers()]:
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=_GENERATOR) + 0.5)
    return layer


def assigned(x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    y[:, 1:3] += 1
    y[:, 0] = 2.0
    y[1] *= x[0]
    return y


ELEMENTWISE = {
    "add": (lambda x, y: torch.add(x, y, alpha=2), (t(2, 3), t(3))),
    "add_number": (lambda x: x + 1, (t(2, 3),)),
    "sub": (lambda x, y: x - y, (t(2, 3), t(2, 1))),
    "rsub": (lambda x: 1 - x, (t(2, 3),)),
    "rsub_alpha": (lambda x, y: torch.rsub(x, y, alpha=3), (t(2, 3), t(2, 3))),
    "mul": (lambda x, y: x * y * 2, (t(2, 3), t(3))),
    "div": (lambda x, y: x / (y.exp() + 1) / 3, (t(2, 3), t(3))),
    "neg": (lambda x: -x, (t(4),)),
    "reciprocal": (lambda x: 1 / (x.exp() + 1) + (x.exp() + 2).reciprocal(), (t(4),)),
    "square": (torch.square, (t(4),)),
    "cube": (lambda x: x**3 + x**2, (t(4),)),
    "negative_power": (lambda x: x.exp() ** -1 + x.exp() ** -2, (t(4),)),
    "abs": (torch.abs, (t(9),)),
    "exp": (torch.exp, (t(9),)),
    "relu": (F.relu, (t(9),)),
    "relu_": (lambda x: F.relu_(x + 0), (t(9),)),
    "relu6": (F.relu6, (t(9) * 5,)),
    "sigmoid": (torch.sigmoid, (t(9),)),
    "tanh": (torch.tanh, (t(9),)),
    "silu": (F.silu, (t(9),)),
    "gelu_tanh": (lambda x: F.gelu(x, approximate="tanh"), (t(9),)),
    "hardswish": (F.hardswish, (t(20) * 3,)),
    "hardsigmoid": (F.hardsigmoid, (t(20) * 3,)),
    "hardtanh": (lambda x: F.hardtanh(x, -0.5, 2), (t(9) * 2,)),
    "clamp": (lambda x: x.clamp(-0.5, 0.5) + x.clamp(min=0.1) + x.clamp(max=0.2), (t(9),)),
    "clamp_bounds": (lambda x: x.clamp_min(0.1) * x.clamp_max(0.2), (t(9),)),
    "maximum": (lambda x: torch.maximum(x, torch.tensor(0.1)) + torch.minimum(torch.tensor(0.2), x), (t(9),)),
    "leaky_relu": (lambda x: F.leaky_relu(x, 0.2), (t(9),)),
    "prelu": (nn.PReLU(), (t(2, 4, 3, 3),)),
    "prelu_channels": (norm(4, nn.PReLU), (t(2, 4, 3, 3),)),
    "rrelu": (lambda x: F.rrelu(x), (t(9),)),
    "scalars": (lambda x: torch.ops.aten.sub.Scalar(torch.ops.aten.add.Scalar(x, 1, 2), 3, 2), (t(9),)),
    "quotient": (lambda x: torch.ops.aten.div.Scalar(x, 3), (t(9),)),
    "elu": (lambda x: F.elu(x, 0.7), (t(9),)),
    "selu": (F.selu, (t(9),)),
    "celu": (lambda x: F.celu(x, 1.3), (t(9),)),
    "dropout": (nn.Sequential(nn.Dropout(), nn.Dropout2d()), (t(2, 3, 2, 2),)),
    "glu": (lambda x: F.glu(x, 1), (t(2, 6),)),
    "casts_of_constants": (lambda x: x * torch.arange(3) + torch.tensor([1, 2, 3], dtype=torch.int32), (t(2, 3),)),
    "mask": (lambda x: x + torch.full((3, 3), -5.0).triu(1) + torch.eye(3), (t(3, 3),)),
    "detached": (lambda x: x.detach().contiguous() + x.to(torch.float32), (t(3, 3),)),
    "filled": (
        lambda x: (
            x + torch.full_like(x, 2.0) + x.new_zeros(3) + torch.ones_like(x) * torch.zeros_like(x) + x.new_ones(3)
        ),
        (t(2, 3),),
    ),
    "new_full": (lambda x: x + x.new_full((3,), 2.0), (t(2, 3),)),
    "scalar": (lambda x: x.sum() * 2, (t(3),)),
}

MATH = {
    "powers_of_two": (lambda x: torch.exp2(x) + torch.erfc(x) + torch.hypot(x, x + 1), (t(9),)),
    "angles": (
        lambda y, x: torch.atan2(y, x),
        (torch.tensor([0.0, 0, 1, -1, 2, -2, 0.5, -0.5, 0]), torch.tensor([1.0, -1, 0, 0, 3, -1, -3, 3, 0])),
    ),
    "distances": (lambda a, b: [torch.cdist(a, b, p) for p in (2, 1, torch.inf)], (t(3, 4), t(5, 4))),
    "other_norms": (lambda x: (x.norm(p=3), torch.linalg.vector_norm(x, -torch.inf, 1), x.norm(p=1)), (t(3, 4),)),
    "whole_quotients": (lambda i: (i // 3, i // -2, torch.div(i, 2, rounding_mode="trunc")), (torch.arange(-5, 5),)),
    "roots": (lambda x: x.exp().sqrt() + (x.exp() + 1).rsqrt(), (t(9),)),
    "powers": (lambda x: x.exp() ** 0.5 + x.exp() ** -0.5 + x.exp() ** 1.7 + x**4, (t(9),)),
    "power_of": (lambda x, y: x.exp() ** y + 2.0**y, (t(9), t(9))),
    "logarithms": (lambda x: x.exp().log() + x.exp().log2() - x.exp().log10() + x.exp().log1p(), (t(9),)),
    "expm1": (torch.expm1, (t(9),)),
    "erf": (torch.erf, (t(9),)),
    "gelu": (F.gelu, (t(9),)),
    "rounding": (lambda x: x.floor() + 10 * x.ceil() + 100 * x.round() + 1000 * x.trunc() + x.sign(), (t(9) * 3,)),
    "quotients": (
        lambda x: torch.div(x, 0.7, rounding_mode="floor") + torch.div(x, 0.3, rounding_mode="trunc") + x // 0.9,
        (t(9) * 3,),
    ),
    "remainders": (lambda x, y: x % 0.7 + torch.fmod(x, 0.3) + x % y + torch.fmod(x, y), (t(9) * 3, t(9))),
    "circular": (lambda x: x.sin() + x.cos() + (x * 0.3).tan() + x.sinh() + x.cosh(), (t(9),)),
    "circular_inverse": (
        lambda x: (x.tanh().asin() + x.tanh().acos() + x.atan()) + x.asinh() + x.exp().add(1).acosh() + (x / 5).atanh(),
        (t(9),),
    ),
    "maximum_of_two": (lambda x, y: torch.maximum(x, y) - torch.minimum(x, 2 * y), (t(9), t(9))),
    "clamp_tensors": (lambda x, y: torch.clamp(x, -y.abs(), y.abs()), (t(9), t(9))),
    "softplus": (lambda x: F.softplus(x) + F.softplus(x, 2.0), (t(9) * 10,)),
    "mish": (F.mish, (t(9),)),
    "log_sigmoid": (F.logsigmoid, (t(9),)),
    "softsign": (F.softsign, (t(9),)),
    "log_softmax": (lambda x: F.log_softmax(x, 1), (t(2, 5),)),
    "logsumexp": (lambda x: x.logsumexp(1) + x.logsumexp((0, 1)), (t(2, 5),)),
    "norms": (lambda x: F.normalize(x) + x.norm(1) + x.abs().norm(float("inf"), 1, keepdim=True), (t(2, 5),)),
    "std": (lambda x: x.std(1) + x.std(), (t(2, 5),)),
    "integers": (lambda i: (-i).abs() + i * i + i % 3 + torch.maximum(i, -i), (torch.arange(-3, 6),)),
}

LOGIC = {
    "bits": (
        lambda i: ((i & 3) | (i << 1) ^ (i >> 1), ~i, i << i, i >> (i - i % 2) // 8, (i ^ 5) + (i | 8)),
        (torch.arange(0, 9),),
    ),
    "bits_of_tensors": (
        lambda i, j: (
            i & j,
            i | j,
            i ^ j,
            *(shift(i, by) for shift in (torch.bitwise_left_shift, torch.bitwise_right_shift) for by in (1, j)),
        ),
        (torch.arange(0, 9), torch.arange(9, 0, -1)),
    ),
    "sums_of_truths": (lambda x: ((x > 0) * (x < 1), (x > 0) + (x < -1)), (torch.arange(-4, 5) * 0.4,)),
    "compare": (lambda x, y: (x > y, x >= y, x < y, x <= y, x == y.round(), x != y), (t(9).round(), t(9).round())),
    "compare_numbers": (lambda x: (x > 0, x >= 1, x < 0.5, x <= 1, x == 1, x != 1), (torch.arange(-2, 4) * 0.5,)),
    "compare_mixed": (lambda i, x: (i > 0.5, i < x, i == 2), (torch.arange(9), t(9) + 4)),
    "not_numbers": (
        lambda x: (x.isnan(), x.isinf(), torch.nan_to_num(x, 1.0, 2.0, 3.0)),
        (torch.tensor([0.5, float("nan"), float("inf"), -float("inf")]),),
    ),
    "where": (lambda x, y: torch.where(x > 0, x, y) + torch.where(x > y, 1.0, x), (t(9), t(9))),
    "masked_fill": (lambda x: x.masked_fill(x > 0, -1.0), (t(9),)),
    "logic": (lambda a, b: (a & b, a | b, a ^ b, ~a), (torch.arange(4) > 1, torch.arange(4) % 2 > 0)),
    "logic_of_numbers": (
        lambda x, y: (x.logical_and(y), x.logical_or(y), x.logical_xor(y), x.logical_not()),
        (torch.arange(4) - 1, torch.arange(4) // 3),
    ),
    "some": (
        lambda x: (
            (x > 0).any(1),
            torch.any(x > 0, (0, 1)),
            (x > 0).any(),
            (x > -9).all(),
            (x > 0).all(0, keepdim=True),
        ),
        (torch.tensor([[1.0, -1], [-2, -3], [1, 2]]),),
    ),
    "casts": (
        lambda x: (x.long(), x.int().float(), x.bool(), (x > 0).float(), x.double()),
        (torch.arange(-4, 5) * 0.4,),
    ),
    "mixed_sums": (lambda x, i: x + i + (i > 1), (t(4), torch.arange(4))),
    "attention_where": (
        lambda q, m: F.scaled_dot_product_attention(q, q, q, attn_mask=m),
        (t(1, 3, 8), torch.ones(3, 3, dtype=torch.bool).tril()),
    ),
}

MOVEMENTS = {
    "view": (lambda x: x.view(-1, 4).reshape(3, 2, 4).flatten(1), (t(2, 3, 4),)),
    "transposed_view": (lambda x: x.transpose(0, 2).reshape(4, 6), (t(2, 3, 4),)),
    "squeeze": (lambda x: x.squeeze() + x.squeeze(1).squeeze(-1) + x.squeeze((1, 3)).unsqueeze(0)[0], (t(2, 1, 3, 1),)),
    "unflatten": (lambda x: x.unflatten(1, (2, -1)), (t(2, 6),)),
    "t": (lambda x: x.t() + x.T, (t(2, 3),)),
    "permute": (lambda x: x.permute(2, 0, -2), (t(2, 3, 4),)),
    "expand": (lambda x: x.expand(4, -1, 3), (t(2, 1),)),
    "repeat": (lambda x: x.repeat(2, 1, 3), (t(2, 3),)),
    "repeat_interleave": (lambda x: x.repeat_interleave(2, 1), (t(2, 3, 2),)),
    "cat": (lambda x, y: torch.cat([x, y, x], -1), (t(2, 3), t(2, 1))),
    "stack": (lambda x, y: torch.stack([x, y], 1), (t(2, 3), t(2, 3))),
    "slice": (lambda x: x[:, 1:-1, ::2], (t(2, 5, 6),)),
    "select": (lambda x: x[:, -1] + x[:, 0], (t(2, 5, 6),)),
    "assigned": (assigned, (t(2, 5),)),
    "split": (lambda x: x.split(2, 1), (t(2, 5),)),
    "split_sizes": (lambda x: x.split([1, 4], 1), (t(2, 5),)),
    "chunk": (lambda x: x.chunk(2, -1), (t(2, 6),)),
    "unbind": (lambda x: x.unbind(1), (t(2, 3),)),
    "narrow": (lambda x: x.narrow(1, 1, 2), (t(2, 4),)),
    "flip": (lambda x: x.flip(1), (t(2, 4),)),
    "roll": (lambda x: x.roll(1, 1) + x.roll((1, -2), (0, 1)) + x.roll(3), (t(2, 4),)),
    "pad": (lambda x: F.pad(x, (1, 2, 0, 1), value=0.5), (t(2, 3, 4),)),
    "negative_pad": (lambda x: F.pad(x, (-1, 2)), (t(2, 3),)),
    "reflect": (lambda x: F.pad(x, (2, 1, 1, 2), mode="reflect"), (t(1, 2, 4, 4),)),
    "replicate": (lambda x: F.pad(x, (2, 1, 1, 2), mode="replicate"), (t(1, 2, 4, 4),)),
    "reflect1d": (lambda x: F.pad(x, (2, 1), mode="reflect") + F.pad(x, (2, 1), mode="replicate"), (t(1, 2, 4),)),
    "circular": (lambda x: F.pad(x, (2, 1), mode="circular"), (t(1, 2, 4),)),
    "pixel_shuffle": (lambda x: F.pixel_shuffle(x, 2), (t(2, 8, 3, 2),)),
    "pixel_unshuffle": (lambda x: F.pixel_unshuffle(x, 2), (t(2, 2, 6, 4),)),
    "channel_shuffle": (lambda x: F.channel_shuffle(x, 2), (t(2, 4, 3, 2),)),
    "unfold_patches": (
        lambda x: x.reshape(1, 3, 2, 2, 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(1, 4, 12),
        (t(1, 3, 4, 4),),
    ),
    "diagonal": (lambda x: x.diagonal() + x.diagonal(-1, 0, 1)[..., :1] + x.diagonal(2, 2, 0).sum(), (t(4, 4, 4),)),
    "meshgrid": (lambda x: x + torch.meshgrid(torch.arange(2.0), torch.arange(3.0), indexing="ij")[1], (t(2, 3),)),
}
