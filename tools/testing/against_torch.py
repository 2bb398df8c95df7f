"""Checks an op against its torch counterpart: type rule, reference in both precisions, and gradient."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from edgec.graph.ops.base import Op, Tolerance
from edgec.graph.types import DType, TensorType
from edgec.tools.testing.gradcheck import vjp_gradients


def check_against_torch(op: Op, counterpart: Callable[..., torch.Tensor], *inputs: np.ndarray, seed: int = 0) -> None:
    """Assert that `op`, of one output, agrees with `counterpart` at float `inputs`.

    In float64 values and gradients agree to 1e-12. In float32 the reference keeps its dtype and stays within the op's
    own tolerance of the float64 result (relative to the largest element where sums may cancel).
    """
    doubles = [np.asarray(x, np.float32).astype(np.float64) for x in inputs]  # the same numbers in both precisions
    tensors = [torch.tensor(x, requires_grad=True) for x in doubles]
    expected = counterpart(*tensors)
    (y,) = op.reference(*doubles)
    assert op.infer(*(_type(x) for x in doubles)) == (_type(y),)
    np.testing.assert_allclose(y, expected.detach().numpy(), rtol=1e-12, atol=1e-12)

    singles = [x.astype(np.float32) for x in doubles]
    (y32,) = op.reference(*singles)
    assert isinstance(y32, np.ndarray)
    assert op.infer(*(_type(x) for x in singles)) == (_type(y32),)
    if op.tolerance is Tolerance.EXACT:
        np.testing.assert_array_equal(y32, y)
    else:
        largest = float(np.max(np.abs(y), initial=0.0))
        np.testing.assert_allclose(y32, y, rtol=op.tolerance.value, atol=op.tolerance.value * largest)

    if op.no_gradient is None:
        dy = np.random.default_rng(seed).standard_normal(y.shape)
        if expected.numel():
            expected.backward(torch.tensor(dy))
        gradients = vjp_gradients(op, doubles, [dy])
        for gradient, tensor, x in zip(gradients, tensors, doubles, strict=True):
            wanted = np.zeros(x.shape) if tensor.grad is None else tensor.grad.numpy()
            np.testing.assert_allclose(gradient, wanted, rtol=1e-12, atol=1e-12)


def _type(array: np.ndarray) -> TensorType:
    return TensorType(DType.of(array.dtype), array.shape)
