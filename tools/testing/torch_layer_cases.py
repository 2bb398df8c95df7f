"""Operators of torch as functions or modules with arguments: layers, reductions, indexing, resampling, recurrence."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from edgec.tools.testing.torch_op_cases import affine, norm, t

image = (2, 4, 9, 8)
positions = torch.tensor([2, 0, 1])


def put_behind(x: torch.Tensor, i: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    y[:, i] = values
    return y


def put_pairs(x: torch.Tensor, i: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    y[i, i] = 3.0
    return y


def put_mask(x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    y[x < 0] = 9.0
    return y


def put_rows(x: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    y[x[:, 0] < 0] = row
    return y


class Cells(nn.Module):
    """Single steps."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.gru = nn.LSTMCell(4, 5), nn.GRUCell(4, 5)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.lstm(x)[1], self.gru(x)


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
    "conv3d": (nn.Conv3d(2, 4, (3, 2, 3), (1, 2, 1), (1, 0, 1), groups=2), (t(2, 2, 4, 5, 6),)),
    "conv_transpose3d": (
        nn.ConvTranspose3d(4, 6, (3, 2, 3), (2, 3, 1), (1, 0, 1), (1, 2, 0), groups=2),
        (t(2, 4, 3, 4, 5),),
    ),
    "conv3d_same": (nn.Conv3d(2, 4, (2, 3, 3), padding="same"), (t(2, 2, 4, 5, 6),)),
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
    "addbmm": (lambda a, b, c: torch.addbmm(a, b, c, beta=0.5, alpha=2), (t(2, 4), t(3, 2, 5), t(3, 5, 4))),
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
    "attention_nothing_allowed": (
        lambda q, m: F.scaled_dot_product_attention(q, q, q, attn_mask=m),
        (t(1, 3, 8), torch.ones(3, 3, dtype=torch.bool).tril(-1)),
    ),
    "attention_nothing_allowed_known": (
        lambda q: F.scaled_dot_product_attention(q, q, q, attn_mask=torch.ones(3, 3, dtype=torch.bool).tril(-1)),
        (t(1, 3, 8),),
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
    "max_pool3d": (lambda x: F.max_pool3d(x, (2, 3, 2), (1, 2, 2), (1, 1, 0)), (t(2, 3, 4, 6, 5),)),
    "avg_pool3d": (lambda x: F.avg_pool3d(x, 2, 2, (1, 0, 1), count_include_pad=False), (t(2, 3, 4, 6, 5),)),
    "local_response": (nn.LocalResponseNorm(3), (t(2, 6, 4, 3),)),
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
    "adaptive_max_odd": (lambda x: F.adaptive_max_pool2d(x, (4, 3)), (t(*image),)),
    "adaptive_avg1d_odd": (lambda x: F.adaptive_avg_pool1d(x, 4), (t(2, 3, 9),)),
    "adaptive_max1d": (lambda x: F.adaptive_max_pool1d(x, 3), (t(2, 3, 9),)),
    "mean": (lambda x: x.mean() + x.mean((1, 2)).mean(0, keepdim=True), (t(2, 3, 4),)),
    "sum": (lambda x: x.sum() + x.sum(-1, keepdim=True), (t(2, 3, 4),)),
    "amax": (lambda x: x.amax((0, 2)) + x.max(), (t(2, 3, 4),)),
    "amin": (lambda x: x.amin((0, 2)) + x.min(), (t(2, 3, 4),)),
    "max_values": (lambda x: x.max(1)[0] + x.min(1, keepdim=False).values, (t(2, 3, 4),)),
    "var": (lambda x: x.var(1, keepdim=True) + x.var((0, 2), correction=0, keepdim=True), (t(2, 3, 4),)),
    "var_mean": (lambda x: (*torch.var_mean(x, 1), *torch.std_mean(x, (0, 2), unbiased=False)), (t(2, 3, 4),)),
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
    "index_two": (lambda x: x[torch.arange(3), torch.tensor([2, 0, -1])], (t(3, 4, 2),)),
    "index_two_at_run_time": (lambda x, i: x[i, i - 3], (t(3, 3, 2), positions)),
    "index_behind": (lambda x, i: x[:, i, i], (t(2, 3, 4), positions)),
    "index_apart": (lambda x, i: x[i, :, i] + x[positions, :, positions], (t(3, 4, 3), positions)),
    "index_of_each_row": (lambda x, i: x[torch.arange(2)[:, None], i], (t(2, 4, 5), torch.tensor([[1, 2], [0, 3]]))),
    "index_known_behind": (lambda x: x[:, torch.tensor([0, 1]), torch.tensor([2, 3])], (t(2, 3, 4),)),
    "index_triangle": (lambda x: x[:, torch.triu_indices(3, 3)[0], torch.triu_indices(3, 3)[1]], (t(2, 3, 3),)),
    "index_known_mask": (lambda x: x[:, torch.tensor([True, False, True])], (t(2, 3),)),
    "index_known_places": (lambda x: x[:, torch.eye(3).bool()], (t(2, 3, 3),)),
    "index_put": (lambda x, i: x.index_put((i,), torch.arange(12.0).reshape(3, 4)), (t(5, 4), positions)),
    "index_put_added": (
        lambda x, i, v: x.index_put((i,), v, accumulate=True),
        (t(5, 4), torch.tensor([2, 2, -1]), t(3, 4)),
    ),
    "index_put_behind": (put_behind, (t(2, 5, 3), positions, t(2, 3, 3))),
    "index_put_pairs": (put_pairs, (t(4, 5), positions)),
    "index_put_mask": (put_mask, (t(4, 5),)),
    "index_put_rows": (put_rows, (t(4, 5), t(5))),
    "index_add": (lambda x, i, v: x.index_add(0, i, v) + x.index_fill(1, i, 2.0), (t(4, 4), positions, t(3, 4))),
    "embedding": (nn.Embedding(7, 4), (torch.tensor([[1, 0, 6], [3, 3, 2]]),)),
    "index_select_known": (lambda x: x.index_select(1, torch.tensor([2, 0, 1])), (t(2, 4),)),
    "index_select": (lambda x, i: x.index_select(1, i), (t(2, 4), torch.tensor([2, 0, 1]))),
    "index": (lambda x, i: x[i] + x[:, i][i], (t(4, 4), torch.tensor([2, 0, 3, 1]))),
    "index_known": (lambda x: x[:, torch.tensor([[2, 0], [-1, 1]])], (t(2, 4),)),
    "index_far": (lambda x: x[:, torch.arange(0, 22) * 7 % 22], (t(2, 22),)),
    "gather": (lambda x, i: x.gather(1, i), (t(2, 4), torch.tensor([[2, 0], [1, 1]]))),
    "scatter": (lambda x, i, y: x.scatter(1, i, y), (t(2, 4), torch.tensor([[2, 0], [1, 3]]), t(2, 2))),
    "scatter_add": (lambda x, i, y: x.scatter_add(1, i, y), (t(2, 4), torch.tensor([[2, 2], [1, 3]]), t(2, 2))),
    "gather_corner": (lambda x, i: x.gather(1, i), (t(3, 4), torch.tensor([[2, 0], [1, 1]]))),
    "scatter_value": (lambda x, i: x.scatter(1, i, 2.0), (t(2, 4), torch.tensor([[2, 0], [1, 3]]))),
    "scatter_corner": (lambda x, i, y: x.scatter(1, i, y), (t(3, 4), torch.tensor([[2, 0]]), t(2, 3))),
    "scatter_reduced": (
        lambda x, i, v: [
            x.scatter_reduce(0, i, v, kind, include_self=own)
            for kind in ("sum", "prod", "mean", "amax", "amin")
            for own in (True, False)
        ],
        (t(4), torch.tensor([2, 0, 2]), t(3)),
    ),
    "bucketize": (
        lambda x: (torch.bucketize(x, torch.tensor([-1.0, 0, 1])), torch.bucketize(x, x[0].sort()[0], right=True)),
        (t(2, 9),),
    ),
    "searchsorted": (lambda x: torch.searchsorted(x.sort()[0], x + 0.1, out_int32=True), (t(2, 9),)),
    "unfold": (lambda x: (x.unfold(1, 3, 2), x.unfold(1, 2, 2)), (t(2, 9, 4),)),
    "unfold_image": (lambda x: F.unfold(x, (3, 2), padding=1, stride=2, dilation=(2, 1)), (t(2, 3, 8, 8),)),
    "unfold_one_image": (lambda x: F.unfold(x, 2, stride=2), (t(3, 8, 8),)),
    "fold_image": (lambda x: F.fold(x, (8, 7), (3, 2), padding=1, stride=(2, 1), dilation=(1, 2)), (t(2, 18, 28),)),
    "argmax": (lambda x: (x.argmax(), x.argmax(1), x.argmin(0, keepdim=True), x.argmin()), (t(5, 4),)),
    "max_dim": (lambda x: x.max(1), (t(5, 4),)),
    "min_dim": (lambda x: x.min(1, keepdim=True), (t(5, 4),)),
    "topk": (lambda x: x.topk(2), (t(5, 4),)),
    "topk_smallest": (lambda x: x.topk(2, 0, largest=False), (t(5, 4),)),
    "sort": (lambda x: x.sort(-1, descending=True), (t(5, 4),)),
    "sort_stable": (lambda x: torch.sort(x, stable=True, dim=0), (t(5, 4),)),
}

RESAMPLING = {
    "grid_sample": (lambda x, g: F.grid_sample(x, g, align_corners=False), (t(2, 3, 5, 6), t(2, 4, 4, 2))),
    "grid_sample_border": (
        lambda x, g: F.grid_sample(x, g, mode="nearest", align_corners=True, padding_mode="border"),
        (t(2, 3, 5, 6), t(2, 4, 4, 2)),
    ),
    "grid_sample_reflection": (
        lambda x, g: F.grid_sample(x, g, mode="bicubic", align_corners=False, padding_mode="reflection"),
        (t(2, 3, 5, 6), t(2, 4, 4, 2)),
    ),
    "grid_sample_3d": (lambda x, g: F.grid_sample(x, g, align_corners=True), (t(1, 2, 3, 4, 5), t(1, 2, 2, 2, 3))),
    "nearest": (lambda x: F.interpolate(x, scale_factor=2), (t(*image),)),
    "nearest_size": (lambda x: F.interpolate(x, size=(12, 5)), (t(*image),)),
    "nearest_exact": (lambda x: F.interpolate(x, size=(12, 5), mode="nearest-exact"), (t(*image),)),
    "nearest_3d": (lambda x: F.interpolate(x, scale_factor=2), (t(1, 2, 2, 3, 3),)),
    "trilinear": (lambda x: F.interpolate(x, scale_factor=2, mode="trilinear"), (t(1, 2, 2, 3, 3),)),
    "bilinear": (lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), (t(*image),)),
    "bilinear_corners": (lambda x: F.interpolate(x, size=(5, 17), mode="bilinear", align_corners=True), (t(*image),)),
    "bilinear_scale": (lambda x: F.interpolate(x, scale_factor=(1.7, 0.6), mode="bilinear"), (t(*image),)),
    "bilinear_aa": (lambda x: F.interpolate(x, size=(4, 4), mode="bilinear", antialias=True), (t(*image),)),
    "bicubic": (lambda x: F.interpolate(x, scale_factor=2, mode="bicubic"), (t(*image),)),
    "bicubic_aa": (lambda x: F.interpolate(x, size=(4, 4), mode="bicubic", antialias=True), (t(*image),)),
}

RECURRENT = {
    "lstm": (nn.LSTM(4, 5, 2, batch_first=True, bidirectional=True, dropout=0.1), (t(3, 6, 4),)),
    "lstm_state": (nn.LSTM(4, 5, bias=False), (t(6, 2, 4), (t(1, 2, 5), t(1, 2, 5)))),
    "lstm_projected": (nn.LSTM(4, 5, proj_size=3, bidirectional=True), (t(6, 2, 4),)),
    "lstm_one_row": (nn.LSTM(4, 5), (t(6, 4),)),
    "gru": (nn.GRU(4, 5, 2, bidirectional=True), (t(6, 2, 4), t(4, 2, 5))),
    "gru_plain": (nn.GRU(4, 5, bias=False, batch_first=True), (t(2, 6, 4),)),
    "rnn": (nn.RNN(4, 5, 2), (t(6, 2, 4),)),
    "rnn_relu": (nn.RNN(4, 5, nonlinearity="relu", bidirectional=True), (t(6, 2, 4),)),
    "cells": (Cells(), (t(2, 4),)),
}

turns = torch.polar(torch.ones(4, 3), torch.outer(torch.arange(4.0), torch.arange(3.0) + 1))


def rotary(x: torch.Tensor) -> torch.Tensor:
    """Rotary embeddings as LLaMA's first code has them."""
    pairs = torch.view_as_complex(x.reshape(1, 4, 2, 3, 2))
    return torch.view_as_real(pairs * turns[None, :, None]).flatten(3)


def squared(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    z = torch.complex(x, y)
    return (z * z).imag


COMPLEX = {
    "rotary": (rotary, (t(1, 4, 2, 6),)),
    "polar": (lambda x: torch.view_as_real(torch.polar(x.exp(), x) + torch.complex(x, x + 1).conj()), (t(2, 3),)),
    "complex_products": (
        lambda x, y: (torch.complex(x, y) @ torch.complex(y, x).mT * torch.complex(x[:, :2], y[:, :2])).abs(),
        (t(2, 3), t(2, 3)),
    ),
    "complex_square": (lambda x, y: (torch.complex(x, y).square() / 3).real + squared(x, y), (t(2, 3), t(2, 3))),
    "fft": (lambda x: (torch.fft.fft(x).real, torch.fft.fft2(x, norm="ortho").imag), (t(2, 4, 6),)),
    "real_fft": (
        lambda x: torch.fft.irfft2(torch.fft.rfft2(x) * torch.complex(x, x)[..., :4], s=(5, 6), norm="ortho"),
        (t(5, 6),),
    ),
    "real_fft_odd": (lambda x: torch.fft.irfft(torch.fft.rfft(x, dim=1)[:, :3] * 2, n=5, dim=1), (t(2, 5, 2),)),
    "spectrogram": (
        lambda x: torch.stft(x, 16, 4, window=torch.hann_window(16), return_complex=True).abs() ** 2,
        (t(1, 64),),
    ),
}
