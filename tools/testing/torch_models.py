"""Well-known architectures as compact torch modules, small enough to compile in seconds, with weights that are alive.

Untrained weights of the usual initialisation give the same output for every input in eval mode. `awake` redraws them:
He-normal matrices, scales in [0.5, 1.5], shifts in [-0.3, 0.3], batch norm statistics from real batches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgec.tools.testing.minilm import MiniLm, trained_minilm


def awake(module: nn.Module, *inputs: Tensor, seed: int = 0) -> nn.Module:
    """`module` in eval mode, redrawn from `seed`; batch norm statistics are those of batches shaped as `inputs`."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in module.named_parameters():
            if p.dim() > 1:
                p.normal_(0, (2 / p[0].numel()) ** 0.5, generator=generator)
            elif name.endswith("bias"):
                p.uniform_(-0.3, 0.3, generator=generator)
            else:
                p.uniform_(0.5, 1.5, generator=generator)
        norms = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
        for part in norms:
            part.momentum = None  # the plain average of all batches
            part.reset_running_stats()
        if norms:
            module.train()
            for _ in range(3):
                module(*(torch.randn(4, *x.shape[1:], generator=generator) for x in inputs))
    return module.eval()


def conv_norm(
    ci: int, co: int, k: int = 3, stride: int = 1, groups: int = 1, act: Callable[[], nn.Module] | None = nn.ReLU
) -> nn.Sequential:
    parts = [nn.Conv2d(ci, co, k, stride, k // 2, groups=groups, bias=False), nn.BatchNorm2d(co)]
    return nn.Sequential(*parts, *([act()] if act else []))


class BasicBlock(nn.Module):
    def __init__(self, ci: int, co: int, stride: int):
        super().__init__()
        self.conv1, self.conv2 = conv_norm(ci, co, 3, stride), conv_norm(co, co, act=None)
        self.downsample = conv_norm(ci, co, 1, stride, act=None) if stride != 1 or ci != co else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv2(self.conv1(x)) + self.downsample(x))


class ResNet18(nn.Module):
    """He et al., Deep residual learning for image recognition, 2015. x[N,3,H,W] -> logits[N,classes]."""

    def __init__(self, width: int = 64, classes: int = 1000):
        super().__init__()
        widths = [width, width, 2 * width, 4 * width, 8 * width]
        self.stem = nn.Sequential(conv_norm(3, width, 7, 2), nn.MaxPool2d(3, 2, 1))
        blocks = []
        for ci, co, stride in zip(widths, widths[1:], (1, 2, 2, 2), strict=False):
            blocks += [BasicBlock(ci, co, stride), BasicBlock(co, co, 1)]
        self.layers = nn.Sequential(*blocks)
        self.fc = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.adaptive_avg_pool2d(self.layers(self.stem(x)), 1).flatten(1))


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int, inner: int, act: nn.Module, gate: nn.Module):
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(channels, inner, 1), nn.Conv2d(inner, channels, 1)
        self.act, self.gate = act, gate

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.fc2(self.act(self.fc1(F.adaptive_avg_pool2d(x, 1)))))


class InvertedResidual(nn.Module):
    """Expand, depthwise, perhaps squeeze and excite, project; a skip where shapes allow."""

    def __init__(
        self, ci: int, co: int, k: int, stride: int, expand: int, act: Callable[[], nn.Module], gate: nn.Module | None
    ):
        super().__init__()
        inner = ci * expand
        parts = [conv_norm(ci, inner, 1, act=act)] if expand != 1 else []
        parts.append(conv_norm(inner, inner, k, stride, inner, act))
        if gate is not None:
            parts.append(SqueezeExcite(inner, max(ci // 4, 4), act(), gate))
        self.body = nn.Sequential(*parts, conv_norm(inner, co, 1, act=None))
        self.skip = stride == 1 and ci == co

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.skip else self.body(x)


class MobileNet(nn.Module):
    """MobileNetV2 and V3 and EfficientNet differ in `act`, in the gate, and in `rows` of (kernel, stride, expansion,
    channels, repeats). x[N,3,H,W] -> logits[N,classes]."""

    def __init__(
        self,
        rows: Sequence[tuple[int, int, int, int, int]],
        act: Callable[[], nn.Module],
        gate: Callable[[], nn.Module] | None,
        last: int,
        classes: int,
        stem: int | None = None,
    ):
        super().__init__()
        channels = stem or rows[0][3]
        blocks: list[nn.Module] = [conv_norm(3, channels, 3, 2, act=act)]
        for k, stride, expand, co, repeats in rows:
            for index in range(repeats):
                step = stride if index == 0 else 1
                blocks.append(InvertedResidual(channels, co, k, step, expand, act, gate() if gate else None))
                channels = co
        self.features = nn.Sequential(*blocks, conv_norm(channels, last, 1, act=act))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(last, classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(F.adaptive_avg_pool2d(self.features(x), 1).flatten(1))


def mobilenet_v2(classes: int = 1000) -> nn.Module:
    """Sandler et al., MobileNetV2, 2018, at a quarter of the width."""
    rows = [(3, 1, 1, 8, 1), (3, 2, 6, 8, 2), (3, 2, 6, 8, 3), (3, 2, 6, 16, 4), (3, 1, 6, 24, 3), (3, 2, 6, 40, 3)]
    return MobileNet(rows, nn.ReLU6, None, 320, classes)


def mobilenet_v2_whole(classes: int = 1000) -> nn.Module:
    """MobileNetV2 as published, at full width: 3.5 M parameters."""
    rows = [(3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (3, 2, 6, 32, 3), (3, 2, 6, 64, 4), (3, 1, 6, 96, 3)]
    rows += [(3, 2, 6, 160, 3), (3, 1, 6, 320, 1)]
    return MobileNet(rows, nn.ReLU6, None, 1280, classes, stem=32)


def mobilenet_v3(classes: int = 1000) -> nn.Module:
    """After Howard et al., Searching for MobileNetV3, 2019."""
    rows = [(3, 2, 1, 16, 1), (3, 2, 4, 24, 2), (5, 2, 4, 40, 2), (5, 1, 6, 48, 2)]
    return MobileNet(rows, nn.Hardswish, nn.Hardsigmoid, 288, classes)


def efficientnet(classes: int = 1000) -> nn.Module:
    """After Tan and Le, EfficientNet, 2019."""
    rows = [(3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 48, 1)]
    return MobileNet(rows, nn.SiLU, nn.Sigmoid, 256, classes)


class UNet(nn.Module):
    """Ronneberger et al., U-Net, 2015. x[N,3,H,W] -> masks[N,classes,H,W]."""

    def __init__(self, widths: Sequence[int] = (16, 32, 64), classes: int = 4):
        super().__init__()

        def double(ci: int, co: int) -> nn.Sequential:
            return nn.Sequential(conv_norm(ci, co), conv_norm(co, co))

        self.down = nn.ModuleList(double(ci, co) for ci, co in zip((3, *widths), widths, strict=False))
        pairs = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(ci, co, 2, 2) for ci, co in pairs)
        self.merge = nn.ModuleList(double(2 * co, co) for _, co in pairs)
        self.head = nn.Conv2d(widths[0], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for index, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if index else x)
            skips.append(x)
        for up, merge, skip in zip(self.up, self.merge, skips[-2::-1], strict=True):
            x = merge(torch.cat([skip, up(x)], 1))
        return self.head(x)


class VitBlock(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.ln1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.ln2(x))


class VisionTransformer(nn.Module):
    """Dosovitskiy et al., An image is worth 16x16 words, 2020. x[N,3,size,size] -> logits[N,classes]."""

    def __init__(
        self, size: int = 32, patch: int = 8, width: int = 64, heads: int = 4, depth: int = 3, classes: int = 1000
    ):
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.zeros(1, (size // patch) ** 2 + 1, width))
        self.blocks = nn.Sequential(*(VitBlock(width, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(x), -1, -1), tokens], 1) + self.positions
        return self.head(self.norm(self.blocks(tokens))[:, 0])


class LlamaBlock(nn.Module):
    """RMS norms, rotary embeddings, query groups that share keys, gated SiLU."""

    def __init__(self, width: int, heads: int, groups: int):
        super().__init__()
        self.heads, self.groups, self.size = heads, groups, width // heads
        self.ln1, self.ln2 = nn.RMSNorm(width, eps=1e-5), nn.RMSNorm(width, eps=1e-5)
        self.q, self.o = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.k, self.v = (nn.Linear(width, groups * self.size, bias=False) for _ in range(2))
        self.gate, self.up = (nn.Linear(width, 2 * width, bias=False) for _ in range(2))
        self.down = nn.Linear(2 * width, width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        n, s, _ = x.shape
        y = self.ln1(x)
        q, k, v = (part(y).view(n, s, -1, self.size).transpose(1, 2) for part in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(
            rotated(q, cos, sin), rotated(k, cos, sin), v, is_causal=True, enable_gqa=True
        )
        x = x + self.o(y.transpose(1, 2).reshape(n, s, -1))
        y = self.ln2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Su et al., RoFormer, 2021."""
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([-b, a], -1) * sin


class Llama(nn.Module):
    """After Touvron et al., LLaMA, 2023. tokens i64[N,S] -> logits[N,S,vocabulary]; the head shares the embedding."""

    def __init__(self, vocabulary: int = 256, width: int = 64, heads: int = 4, groups: int = 2, depth: int = 2):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.layers = nn.ModuleList(LlamaBlock(width, heads, groups) for _ in range(depth))
        self.norm = nn.RMSNorm(width, eps=1e-5)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.embedding.weight
        size = width // heads
        self.register_buffer("frequencies", 1e4 ** (-torch.arange(0, size, 2) / size), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        angles = torch.outer(torch.arange(tokens.shape[1]), self.frequencies)
        angles = torch.cat([angles, angles], -1)
        for layer in self.layers:
            x = layer(x, angles.cos(), angles.sin())
        return self.head(self.norm(x))


class Lstm(nn.Module):
    """x[N,S,features] -> logits[N,classes] from the outputs of both directions (Hochreiter and Schmidhuber, 1997)."""

    def __init__(self, features: int = 12, width: int = 24, classes: int = 128):
        super().__init__()
        self.lstm = nn.LSTM(features, width, num_layers=2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0].mean(1))


class Detector(nn.Module):
    """A backbone of two scales, a top-down path, and heads shared between them, decoded to boxes.

    x[N,3,H,W] -> {"boxes": [N,cells,4], "scores": [N,cells,classes], "best": the scores of the best cells, "where":
    their boxes}.
    """

    def __init__(self, width: int = 24, classes: int = 6, kept: int = 100):
        super().__init__()
        self.kept = kept
        self.low = nn.Sequential(conv_norm(3, width, 3, 2), conv_norm(width, width, 3, 2))
        self.high = conv_norm(width, width, 3, 2)
        self.lateral = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(2))
        self.box, self.score = nn.Conv2d(width, 4, 3, padding=1), nn.Conv2d(width, classes, 3, padding=1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        low = self.low(x)
        high = self.high(low)
        coarse = self.lateral[1](high)
        fine = self.lateral[0](low) + F.interpolate(coarse, scale_factor=2)
        boxes, scores = [], []
        for level, stride in ((fine, 4), (coarse, 8)):
            h, w = level.shape[2:]
            rows, columns = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
            centres = (torch.stack([columns, rows], -1).reshape(-1, 2) * stride).float()
            sides = F.relu(self.box(level)).flatten(2).transpose(1, 2) * stride
            boxes.append(torch.cat([centres - sides[..., :2], centres + sides[..., 2:]], -1))
            scores.append(self.score(level).flatten(2).transpose(1, 2).sigmoid())
        all_boxes, all_scores = torch.cat(boxes, 1), torch.cat(scores, 1)
        best, cells = all_scores.amax(2).topk(self.kept)
        where = all_boxes.gather(1, cells[..., None].expand(-1, -1, 4))
        return {"boxes": all_boxes, "scores": all_scores, "best": best, "where": where}


def _image(size: int) -> Tensor:
    return torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1))


def _tokens(vocabulary: int, length: int) -> Tensor:
    return torch.randint(1, vocabulary, (1, length), generator=torch.Generator().manual_seed(1))


def _mask(length: int, padded: int) -> Tensor:
    return (torch.arange(length) < length - padded).long()[None]


def _sequence(length: int) -> Tensor:
    return torch.randn(1, length, 12, generator=torch.Generator().manual_seed(1))


# Name: the module, and inputs for it.
Model = tuple[Callable[[], nn.Module], tuple[Tensor, ...]]
TORCH_MODELS: dict[str, Model] = {
    "resnet18": (lambda: ResNet18(16), (_image(64),)),
    "mobilenet_v2": (mobilenet_v2, (_image(64),)),
    "mobilenet_v3": (mobilenet_v3, (_image(64),)),
    "efficientnet": (efficientnet, (_image(64),)),
    "unet": (UNet, (_image(32),)),
    "vit": (VisionTransformer, (_image(32),)),
    "llama": (Llama, (_tokens(256, 12),)),
    "minilm": (lambda: MiniLm(256, 16, 128, 4, 256, 2), (_tokens(256, 12), _mask(12, 3))),
    "lstm": (Lstm, (_sequence(7),)),
    "detector": (Detector, (_image(48),)),
}
# The same ones as people use them, where they are larger.
FULL_MODELS: dict[str, Model] = {
    "resnet18": (ResNet18, (_image(96),)),
    "mobilenet_v2": (mobilenet_v2_whole, (_image(96),)),
    "vit": (lambda: VisionTransformer(224, 16, 192, 3, 12), (_image(224),)),
    "llama": (lambda: Llama(8192, 384, 8, 4, 9), (_tokens(8192, 32),)),  # 15 million parameters
    "minilm": (trained_minilm, (_tokens(20_000, 32), _mask(32, 5))),
    "lstm": (lambda: Lstm(width=128), (_sequence(200),)),
    "unet": (lambda: UNet((32, 64, 128, 256)), (_image(64),)),
}


def torch_model(name: str, models: dict[str, Model] = TORCH_MODELS) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """One of the models, with weights that are alive, and its inputs."""
    make, inputs = models[name]
    module = make()
    return (module if make is trained_minilm else awake(module, *inputs)), inputs
