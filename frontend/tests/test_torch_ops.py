"""Every converter of the torch frontend against torch, through the reference interpreter."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from edgec.frontend.torch.call import Program
from edgec.frontend.torch.export import export_module
from edgec.frontend.torch.importer import Importer
from edgec.frontend.torch.ops import CONVERTERS
from edgec.frontend.torch.program import decompose, read_program
from edgec.graph.ir import Module
from edgec.graph.verify import verify_module
from edgec.tools.testing.torch_import import Together, expected, interpreted

torch.set_num_threads(1)
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


image = (2, 4, 9, 8)

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
    "compare": (lambda x, y: (x > y, x >= y, x < y, x <= y, x == y.round(), x != y), (t(9).round(), t(9).round())),
    "compare_numbers": (lambda x: (x > 0, x >= 1, x < 0.5, x <= 1, x == 1, x != 1), (t(9).round(),)),
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
        (t(3, 2),),
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
    "meshgrid": (lambda x: x + torch.meshgrid(torch.arange(2.0), torch.arange(3.0), indexing="ij")[1], (t(2, 3),)),
}

LAYERS = {
    "conv2d": (nn.Conv2d(4, 6, 3, 2, 1), (t(*image),)),
    "conv2d_groups": (nn.Conv2d(4, 8, (3, 2), (1, 2), (0, 1), (2, 1), groups=2, bias=False), (t(*image),)),
    "depthwise": (nn.Conv2d(4, 4, 3, padding=1, groups=4), (t(*image),)),
    "conv2d_same": (nn.Conv2d(4, 6, (4, 3), padding="same", dilation=2), (t(*image),)),
    "conv2d_valid": (nn.Conv2d(4, 6, 3, padding="valid"), (t(*image),)),
    "conv2d_reflect": (nn.Conv2d(4, 2, 3, padding=1, padding_mode="reflect"), (t(*image),)),
    "conv2d_one_image": (nn.Conv2d(4, 6, 3), (t(4, 9, 8),)),
    "conv1d": (nn.Conv1d(3, 5, 3, 2, 1), (t(2, 3, 10),)),
    "conv1d_same": (nn.Conv1d(3, 5, 4, padding="same"), (t(2, 3, 10),)),
    "conv_transpose2d": (nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, groups=2), (t(*image),)),
    "conv_transpose1d": (nn.ConvTranspose1d(3, 5, 4, 2, 1), (t(2, 3, 10),)),
    "linear": (nn.Linear(6, 4), (t(2, 3, 6),)),
    "linear_vector": (nn.Linear(6, 4, bias=False), (t(6),)),
    "mm": (lambda x, y: x @ y + torch.mm(x, y), (t(2, 3), t(3, 4))),
    "bmm": (torch.bmm, (t(5, 2, 3), t(5, 3, 4))),
    "matmul": (torch.matmul, (t(5, 1, 2, 3), t(4, 3, 4))),
    "matmul_vectors": (lambda x, y: x @ y, (t(4, 2, 3), t(3))),
    "dot": (lambda x, y: torch.dot(x, y), (t(4), t(4))),
    "addmm": (lambda x, y, b: torch.addmm(b, x, y, beta=0.5, alpha=2), (t(2, 3), t(3, 4), t(4))),
    "baddbmm": (lambda x, y, b: torch.baddbmm(b, x, y), (t(5, 2, 3), t(5, 3, 4), t(5, 2, 4))),
    "einsum": (lambda x, y: torch.einsum("bik,bkj->bji", x, y), (t(2, 3, 4), t(2, 4, 5))),
    "batch_norm": (norm(4), (t(*image),)),
    "batch_norm_plain": (norm(4, affine=False, eps=0.1), (t(*image),)),
    "batch_norm1d": (norm(6, nn.BatchNorm1d), (t(3, 6),)),
    "batch_norm1d_sequence": (norm(6, nn.BatchNorm1d), (t(3, 6, 4),)),
    "attention": (F.scaled_dot_product_attention, (t(2, 3, 4, 8), t(2, 3, 5, 8), t(2, 3, 5, 6))),
    "attention_causal": (
        lambda q: F.scaled_dot_product_attention(q, q, q, is_causal=True, scale=0.3),
        (t(2, 3, 4, 8),),
    ),
    "attention_mask": (lambda q, m: F.scaled_dot_product_attention(q, q, q, attn_mask=m), (t(2, 3, 4, 8), t(4, 4))),
    "attention_bool": (
        lambda q: F.scaled_dot_product_attention(q, q, q, attn_mask=torch.ones(4, 4, dtype=torch.bool).tril(1)),
        (t(2, 3, 4, 8),),
    ),
    "attention_shared": (
        lambda q, k: F.scaled_dot_product_attention(q, k, k, enable_gqa=True),
        (t(2, 4, 4, 8), t(2, 2, 5, 8)),
    ),
    "multi_head": (nn.MultiheadAttention(8, 2, batch_first=True), (t(2, 5, 8),) * 3),
}

REDUCTIONS = {
    "max_pool2d": (lambda x: F.max_pool2d(x, 3, 2, 1), (t(*image),)),
    "max_pool2d_ceil": (lambda x: F.max_pool2d(x, (3, 2), 2, ceil_mode=True, dilation=(2, 1)), (t(*image),)),
    "max_pool1d": (lambda x: F.max_pool1d(x, 3, 2, 1), (t(2, 3, 9),)),
    "max_pool2d_indices": (lambda x: F.max_pool2d(x, 2, return_indices=True)[0], (t(*image),)),
    "avg_pool2d": (lambda x: F.avg_pool2d(x, 3, 2, 1), (t(*image),)),
    "avg_pool2d_excluded": (lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False), (t(*image),)),
    "avg_pool2d_ceil": (lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True), (t(*image),)),
    "avg_pool2d_divisor": (lambda x: F.avg_pool2d(x, 2, divisor_override=3), (t(*image),)),
    "avg_pool1d": (lambda x: F.avg_pool1d(x, 3), (t(2, 3, 9),)),
    "adaptive_avg_one": (lambda x: F.adaptive_avg_pool2d(x, 1), (t(*image),)),
    "adaptive_avg_even": (lambda x: F.adaptive_avg_pool2d(x, (3, 4)), (t(*image),)),
    "adaptive_avg_odd": (lambda x: F.adaptive_avg_pool2d(x, (4, 3)), (t(*image),)),
    "adaptive_avg1d": (lambda x: F.adaptive_avg_pool1d(x, 3), (t(2, 3, 9),)),
    "adaptive_max": (lambda x: F.adaptive_max_pool2d(x, (3, 4)), (t(*image),)),
    "adaptive_max1d": (lambda x: F.adaptive_max_pool1d(x, 3), (t(2, 3, 9),)),
    "mean": (lambda x: x.mean() + x.mean((1, 2)).mean(0, keepdim=True), (t(2, 3, 4),)),
    "sum": (lambda x: x.sum() + x.sum(-1, keepdim=True), (t(2, 3, 4),)),
    "amax": (lambda x: x.amax((0, 2)) + x.max(), (t(2, 3, 4),)),
    "amin": (lambda x: x.amin((0, 2)) + x.min(), (t(2, 3, 4),)),
    "max_values": (lambda x: x.max(1)[0] + x.min(1, keepdim=False).values, (t(2, 3, 4),)),
    "var": (lambda x: x.var(1, keepdim=True) + x.var((0, 2), correction=0, keepdim=True), (t(2, 3, 4),)),
    "softmax": (lambda x: F.softmax(x, -2), (t(2, 3, 4),)),
    "cumsum": (lambda x: x.cumsum(1) + x.cumprod(-1), (t(2, 3, 4),)),
    "prod": (lambda x: x.prod() + x.prod(1), (t(2, 3, 4),)),
}

NORMALISATIONS = {
    "layer_norm": (norm((3, 4), nn.LayerNorm), (t(2, 3, 4),)),
    "layer_norm_plain": (lambda x: F.layer_norm(x, (4,)), (t(2, 3, 4),)),
    "layer_norm_bias": (lambda x, b: F.layer_norm(x, (4,), None, b, eps=0.1), (t(2, 3, 4), t(4))),
    "rms_norm": (norm(4, nn.RMSNorm), (t(2, 3, 4),)),
    "rms_norm_plain": (lambda x: F.rms_norm(x, (4,), eps=0.1), (t(2, 3, 4),)),
    "group_norm": (nn.Sequential(nn.GroupNorm(1, 4, affine=False), affine(nn.GroupNorm(2, 4))), (t(*image),)),
    "instance_norm": (affine(nn.InstanceNorm2d(4, affine=True)), (t(*image),)),
}

INDEXING = {
    "embedding": (nn.Embedding(7, 4), (torch.tensor([[1, 0, 6], [3, 3, 2]]),)),
    "index_select_known": (lambda x: x.index_select(1, torch.tensor([2, 0, 1])), (t(2, 4),)),
    "index_select": (lambda x, i: x.index_select(1, i), (t(2, 4), torch.tensor([2, 0, 1]))),
    "index": (lambda x, i: x[i] + x[:, i][i], (t(4, 4), torch.tensor([2, 0, 3, 1]))),
    "index_known": (lambda x: x[:, torch.tensor([[2, 0], [-1, 1]])], (t(2, 4),)),
    "index_far": (lambda x: x[:, torch.arange(0, 22) * 7 % 22], (t(2, 22),)),
    "index_two": (lambda x: x[torch.arange(3), torch.tensor([2, 0, -1])], (t(3, 4, 2),)),
    "gather": (lambda x, i: x.gather(1, i), (t(2, 4), torch.tensor([[2, 0], [1, 1]]))),
    "scatter": (lambda x, i, y: x.scatter(1, i, y), (t(2, 4), torch.tensor([[2, 0], [1, 3]]), t(2, 2))),
    "scatter_add": (lambda x, i, y: x.scatter_add(1, i, y), (t(2, 4), torch.tensor([[2, 2], [1, 3]]), t(2, 2))),
    "argmax": (lambda x: (x.argmax(), x.argmax(1), x.argmin(0, keepdim=True), x.argmin()), (t(5, 4),)),
    "max_dim": (lambda x: x.max(1), (t(5, 4),)),
    "min_dim": (lambda x: x.min(1, keepdim=True), (t(5, 4),)),
    "topk": (lambda x: x.topk(2), (t(5, 4),)),
    "topk_smallest": (lambda x: x.topk(2, 0, largest=False), (t(5, 4),)),
    "sort": (lambda x: x.sort(-1, descending=True), (t(5, 4),)),
    "sort_stable": (lambda x: torch.sort(x, stable=True, dim=0), (t(5, 4),)),
}

RESAMPLING = {
    "nearest": (lambda x: F.interpolate(x, scale_factor=2), (t(*image),)),
    "nearest_size": (lambda x: F.interpolate(x, size=(12, 5)), (t(*image),)),
    "nearest_exact": (lambda x: F.interpolate(x, size=(12, 5), mode="nearest-exact"), (t(*image),)),
    "bilinear": (lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), (t(*image),)),
    "bilinear_corners": (lambda x: F.interpolate(x, size=(5, 17), mode="bilinear", align_corners=True), (t(*image),)),
    "bilinear_scale": (lambda x: F.interpolate(x, scale_factor=(1.7, 0.6), mode="bilinear"), (t(*image),)),
    "bilinear_aa": (lambda x: F.interpolate(x, size=(4, 4), mode="bilinear", antialias=True), (t(*image),)),
    "bicubic": (lambda x: F.interpolate(x, scale_factor=2, mode="bicubic"), (t(*image),)),
    "bicubic_aa": (lambda x: F.interpolate(x, size=(4, 4), mode="bicubic", antialias=True), (t(*image),)),
}

FAMILIES = {
    "elementwise": ELEMENTWISE,
    "math": MATH,
    "logic": LOGIC,
    "movement": MOVEMENTS,
    "layers": LAYERS,
    "normalisations": NORMALISATIONS,
    "indexing": INDEXING,
    "reductions": REDUCTIONS,
    "resampling": RESAMPLING,
}


# What only the core operators of torch have.
CORE = {
    name: case
    for name, case in {**ELEMENTWISE, **MATH, **REDUCTIONS, **NORMALISATIONS}.items()
    if name in ("detached", "log_softmax", "softmax", "max_pool2d", "adaptive_avg_even", "layer_norm")
}


@functools.cache
def program_of(family: str) -> Program:
    """All cases of a family as one program: exporting is what takes the time."""
    module = Together(FAMILIES[family])
    return read_program(export_module(module, (module.arguments(),)), CONVERTERS, family)


@functools.cache
def results(family: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """What the interpreter computes, and what torch does."""
    module, graph = Together(FAMILIES[family]).eval(), Importer(program_of(family)).run()
    verify_module(Module({"infer": graph}))
    arguments = (module.arguments(),)
    return interpreted(graph, arguments), expected(module, arguments)


@pytest.mark.parametrize(("family", "case"), [(family, case) for family, cases in FAMILIES.items() for case in cases])
def test_a_converter_against_torch(family: str, case: str) -> None:
    ours, torchs = results(family)
    names = [name for name in torchs if name == case or name.startswith(f"{case}.")]
    assert names and [name for name in ours if name == case or name.startswith(f"{case}.")] == names
    for name in names:
        assert torchs[name].size <= 2 or len(np.unique(torchs[name])) > 1, "shows nothing"
        assert ours[name].dtype == torchs[name].dtype and ours[name].shape == torchs[name].shape
        np.testing.assert_allclose(ours[name], torchs[name], rtol=2e-5, atol=3e-6)


def test_every_converter_has_a_case() -> None:
    """As edgec decomposes programs, or as a user's own `run_decompositions` leaves them."""
    seen = {"aten.dropout.default", "aten.feature_dropout.default"}  # nothing in eval mode, refused in training mode
    seen |= {call.op for family in FAMILIES for call in program_of(family).calls}
    layers = Together({**LAYERS, **CORE})
    exported = decompose(export_module(layers, (layers.arguments(),)), ())
    seen |= {call.op for call in read_program(exported, CONVERTERS, "").calls}
    assert set(CONVERTERS) - seen == set()
