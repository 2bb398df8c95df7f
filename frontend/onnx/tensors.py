"""One ONNX `TensorProto` as a numpy array and back. Sizes are checked before any memory is taken.

Format: https://onnx.ai/onnx/repo-docs/ExternalData.html and onnx.proto, `TensorProto`.
"""

from __future__ import annotations

import math
from pathlib import Path, PurePosixPath

import ml_dtypes
import numpy as np
from onnx import SparseTensorProto, TensorProto

from edgec.frontend.onnx.model import Opaque, Sparse
from edgec.graph.errors import UserError

# Element types that are read: the numpy dtype, and the field that holds the elements where `raw_data` does not.
_ELEMENTS = {
    TensorProto.FLOAT: (np.dtype(np.float32), "float_data"),
    TensorProto.DOUBLE: (np.dtype(np.float64), "double_data"),
    TensorProto.FLOAT16: (np.dtype(np.float16), "int32_data"),
    TensorProto.BFLOAT16: (np.dtype(ml_dtypes.bfloat16), "int32_data"),
    TensorProto.INT8: (np.dtype(np.int8), "int32_data"),
    TensorProto.UINT8: (np.dtype(np.uint8), "int32_data"),
    TensorProto.INT16: (np.dtype(np.int16), "int32_data"),
    TensorProto.UINT16: (np.dtype(np.uint16), "int32_data"),
    TensorProto.INT32: (np.dtype(np.int32), "int32_data"),
    TensorProto.INT64: (np.dtype(np.int64), "int64_data"),
    TensorProto.UINT32: (np.dtype(np.uint32), "uint64_data"),
    TensorProto.UINT64: (np.dtype(np.uint64), "uint64_data"),
    TensorProto.BOOL: (np.dtype(np.bool_), "int32_data"),
}
FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
_STORED_AS_BITS = (TensorProto.FLOAT16, TensorProto.BFLOAT16)


def numpy_dtype(element_type: int) -> np.dtype | Opaque:
    """The numpy dtype of a `TensorProto.DataType`."""
    if element_type in _ELEMENTS:
        return _ELEMENTS[element_type][0]
    known = element_type in TensorProto.DataType.values()
    return Opaque(f"a tensor of dtype {TensorProto.DataType.Name(element_type).lower() if known else element_type}")


class ExternalData:
    """The side files of a model, mapped read-only on first use. `path` is the model's, None for one without.

    They lie in its folder. In caches of model hubs both are links: there, what a link leads to lies beside what the
    model's own leads to.
    """

    def __init__(self, path: Path | None):
        self._folder = None if path is None else path.parent
        self._homes = () if path is None else (path.parent.resolve(), path.resolve().parent)
        self._files: dict[str, np.ndarray] = {}

    def read(self, location: str, offset: int, size: int) -> np.ndarray:
        """u8[size] at `offset` of the file `location`, shared with the page cache."""
        if location not in self._files:
            self._files[location] = self._map(location)
        data = self._files[location]
        if offset < 0 or offset + size > data.size:
            raise UserError(
                "E0102",
                f"the external data file `{location}` has {data.size} bytes, the model needs {offset + size}",
            )
        return data[offset : offset + size]

    def _map(self, location: str) -> np.ndarray:
        if self._folder is None:
            raise UserError(
                "E0106",
                f"the model keeps tensors in the file `{location}`, whose folder is unknown",
                hint="give the path of the model instead of its bytes",
            )
        relative = PurePosixPath(location)
        outside = UserError("E0106", f"external data `{location}` lies outside the model's folder")
        if not location or "\0" in location or relative.is_absolute() or ".." in relative.parts:
            raise outside
        path = self._folder / relative
        try:
            if not path.exists():
                raise UserError("E0106", f"the external data file `{path}` does not exist")
            if not path.is_file():
                raise UserError("E0106", f"external data `{path}` is not a file")
            if not any(path.resolve().is_relative_to(home) for home in self._homes):
                raise outside
            return np.memmap(path, np.uint8, mode="r") if path.stat().st_size else np.zeros(0, np.uint8)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise UserError("E0106", f"the external data file `{path}` cannot be read: {reason}") from None


def read_tensor(tensor: TensorProto, external: ExternalData) -> np.ndarray | Opaque:
    """A read-only array of the tensor's shape; UserError E0102 where the data does not fit it."""
    dtype = numpy_dtype(tensor.data_type)
    if isinstance(dtype, Opaque):
        return dtype
    shape = _shape(tensor)
    size = math.prod(shape)
    if tensor.data_location == TensorProto.EXTERNAL:
        return read_external(tensor, external)
    if tensor.HasField("raw_data"):
        raw = tensor.raw_data
        if len(raw) != size * dtype.itemsize:
            raise _wrong_size(tensor, f"{size * dtype.itemsize} bytes", f"{len(raw)}")
        flat = _of_bytes(np.frombuffer(raw, np.uint8), dtype)
    else:
        flat = _of_fields(tensor, dtype, size)
    array = flat.reshape(shape)
    array.flags.writeable = False
    return array


def read_sparse(sparse: SparseTensorProto, external: ExternalData) -> Sparse | Opaque:
    """Not made dense: a few bytes of a file can name a tensor of any size."""
    values, indices = read_tensor(sparse.values, external), read_tensor(sparse.indices, external)
    if isinstance(values, Opaque):
        return values
    shape, name = tuple(sparse.dims), sparse.values.name
    if min(shape, default=0) < 0 or values.ndim != 1 or isinstance(indices, Opaque) or indices.dtype != np.int64:
        raise UserError("E0102", f"the sparse tensor `{name}` of shape {list(shape)} has no flat list of values")
    by_axis = indices.reshape(len(indices), -1).T if indices.ndim == 2 else indices.reshape(1, -1)
    extents = shape if indices.ndim == 2 else (math.prod(shape),)
    fits = indices.ndim in (1, 2) and len(by_axis) == len(extents) and by_axis.shape[1] == len(values)
    if not fits or any(len(at) and not 0 <= at.min() <= at.max() < n for at, n in zip(by_axis, extents, strict=True)):
        raise UserError("E0102", f"the sparse tensor `{name}` of shape {list(shape)} has indices that do not fit it")
    if math.prod(shape) >= 2**62:
        raise UserError("E0102", f"the sparse tensor `{name}` has the shape {list(shape)}")
    strides = [math.prod(extents[axis + 1 :]) for axis in range(len(extents))]
    positions = sum(at * stride for at, stride in zip(by_axis, strides, strict=True))
    return Sparse(values, np.asarray(positions, np.int64).reshape(-1), shape)


def read_external(tensor: TensorProto, external: ExternalData) -> np.ndarray:
    """A read-only array over the mapped file that holds the tensor."""
    dtype = numpy_dtype(tensor.data_type)
    if isinstance(dtype, Opaque):
        raise UserError("E0103", f"`{tensor.name}` is {dtype.what} in an external file")
    shape = _shape(tensor)
    entries = {entry.key: entry.value for entry in tensor.external_data}
    if not all(isinstance(entry, str) for pair in entries.items() for entry in pair):  # bytes: no UTF-8
        raise UserError("E0102", f"the external data of tensor `{tensor.name}` is described by what is not text")
    offset = entries.get("offset", "0")
    if not offset.isascii() or not offset.isdigit() or len(offset) > 18:
        raise UserError("E0102", f"tensor `{tensor.name}` has the external offset `{offset}`")
    size = math.prod(shape) * dtype.itemsize
    length = entries.get("length", "")
    if length.isascii() and length.isdigit() and int(length[:20]) != size:
        raise _wrong_size(tensor, f"{size} bytes", f"{length}")
    data = external.read(entries.get("location", ""), int(offset), size)
    return _of_bytes(data, dtype).reshape(shape)


def write_tensor(tensor: TensorProto, array: np.ndarray) -> None:
    """Replace the elements of `tensor` by those of `array`, which has its shape; dtype and name stay."""
    data = _elements(tensor, array)
    _clear(tensor)
    tensor.raw_data = data.tobytes()


def write_tensor_externally(tensor: TensorProto, array: np.ndarray, location: str, offset: int) -> np.ndarray:
    """Let `tensor` lie at `offset` of the file `location`; what has to be written there."""
    data = _elements(tensor, array)
    _clear(tensor)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", data.nbytes)):
        tensor.external_data.add(key=key, value=str(value))
    return data


def _elements(tensor: TensorProto, array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array, _ELEMENTS[tensor.data_type][0])


def _clear(tensor: TensorProto) -> None:
    for name in ("raw_data", "external_data", "data_location", *{name for _, name in _ELEMENTS.values()}):
        tensor.ClearField(name)


def _shape(tensor: TensorProto) -> tuple[int, ...]:
    shape = tuple(tensor.dims)
    if min(shape, default=0) < 0 or tensor.HasField("segment"):
        raise UserError("E0102", f"tensor `{tensor.name}` has the shape {list(shape)}")
    return shape


def _of_bytes(data: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return data != 0 if dtype == np.bool_ else data.view(dtype)


def _of_fields(tensor: TensorProto, dtype: np.dtype, size: int) -> np.ndarray:
    elements = getattr(tensor, _ELEMENTS[tensor.data_type][1])
    if len(elements) != size:
        raise _wrong_size(tensor, f"{size} elements", f"{len(elements)}")
    if tensor.data_type in _STORED_AS_BITS:
        return np.array(elements, np.int32).astype(np.uint16).view(dtype)
    return np.array(elements, None if size else dtype).astype(dtype)


def _wrong_size(tensor: TensorProto, wanted: str, got: str) -> UserError:
    return UserError("E0102", f"tensor `{tensor.name}` of shape {list(tensor.dims)} needs {wanted}, the file has {got}")
