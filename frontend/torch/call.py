"""What a torch program is to the converters: plain data. A `Call` is one application of an aten operator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from edgec.graph.types import DType, TensorType


class Unsupported(Exception):
    """Why a call cannot be imported; the text is read by the user."""


@dataclass(frozen=True)
class Ref:
    """An argument that another call, an input or a stored tensor gives: result `index` of it, or the only one."""

    name: str
    index: int | None = None


@dataclass(frozen=True, eq=False)
class Known:
    """A tensor known at compile time. `name` is its name in state_dict; empty if it was computed or written in code."""

    tensor: torch.Tensor
    name: str = ""
    trainable: bool = False  # a parameter: what is computed from it stays live


@dataclass(frozen=True)
class Call:
    """`arguments` by the names of the operator's schema, with defaults; tensors in them are `Ref`s.

    results: the type of each result, None for what is no tensor. source: module path, file and line of the user.
    """

    name: str
    op: str  # such as `aten.conv2d.default`
    target: object  # torch's OpOverload, to evaluate it
    arguments: Mapping[str, object]
    results: tuple[TensorType | None, ...]
    source: str

    @property
    def label(self) -> str:
        return self.source or self.name

    @property
    def type(self) -> TensorType:
        """Of the first result."""
        if not self.results or self.results[0] is None:
            raise Unsupported("its result is not a tensor")
        return self.results[0]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.type.shape


@dataclass(frozen=True)
class Program:
    """An exported program. `stored` are parameters, buffers and constants by their names in the program."""

    label: str
    inputs: Mapping[str, TensorType]
    stored: Mapping[str, Known]
    calls: tuple[Call, ...]
    outputs: Mapping[str, Ref]


_DTYPES = {
    torch.float16: DType.F16,
    torch.bfloat16: DType.BF16,
    torch.float32: DType.F32,
    torch.float64: DType.F64,
    torch.int8: DType.I8,
    torch.uint8: DType.U8,
    torch.int32: DType.I32,
    torch.int64: DType.I64,
    torch.bool: DType.BOOL,
}
TORCH_DTYPES = {dtype: torch_dtype for torch_dtype, dtype in _DTYPES.items()}


def dtype_of(dtype: torch.dtype) -> DType:
    if dtype not in _DTYPES:
        raise Unsupported(f"tensors of {dtype} are not supported")
    return _DTYPES[dtype]


def part_type_of(tensor: torch.Tensor) -> TensorType:
    """The type of a tensor; of a complex one that of its real part, and of its imaginary part."""
    return type_of(tensor.real) if tensor.is_complex() else type_of(tensor)


def type_of(tensor: torch.Tensor) -> TensorType:
    """Of a real or a fake tensor. Unsupported where the shape is not known, or the graph lacks the dtype."""
    if tensor.is_sparse or tensor.is_quantized:
        raise Unsupported("sparse and quantized tensors are not supported")
    if not all(type(size) is int for size in tensor.shape):
        raise Unsupported("its output shape depends on data")
    return TensorType(dtype_of(tensor.dtype), tuple(tensor.shape))
