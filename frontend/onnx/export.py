"""Writes trained parameters back into the ONNX model they came from, by name.

Everything else of the model (nodes, metadata, names) stays as it was. A parameter has in edgec the name and the shape
of its initializer, so there is nothing to translate; those of a new head have other shapes, see `export_head.py`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from onnx import GraphProto, ModelProto, TensorProto

from edgec.frontend.onnx.export_head import replace_head
from edgec.frontend.onnx.model import Opaque
from edgec.frontend.onnx.reader import MAX_PROTOBUF, Source, label_of, model_tensors, path_of, read_proto
from edgec.frontend.onnx.tensors import (
    ExternalData,
    numpy_dtype,
    read_external,
    write_tensor,
    write_tensor_externally,
)
from edgec.graph.errors import UserError

_ALIGNMENT = 4096  # bytes: external tensors start on pages, so that a reader can map them


def export_onnx(
    source: Source, values: Mapping[str, np.ndarray], path: str | Path, head: Mapping[str, np.ndarray] | None = None
) -> None:
    """Write the model `source` to `path` with the initializers named in `values` replaced, all else unchanged.

    Values have the shape of their initializer and are converted to its float dtype; `head` has the parameters of a
    dense layer with other classes, by the names of the old ones. Tensors that the model keeps in external files go to
    one file beside the result, `<name>.data`. A file appears complete or not at all.

    UserError: E0601 for a name that is no initializer, E0603 for a shape and E0602 for a dtype that do not fit, E0111
    for a head that does not, E0505 where `path` cannot be written, E0107 above 2 GiB, and what reading the model may
    raise.
    """
    path, where = Path(path), label_of(source)
    model = read_proto(source)
    if model is source:
        model = ModelProto()
        model.CopyFrom(source)
    tensors = model_tensors(model.graph)
    if head:
        for name in head:
            _require(name, tensors, where)
        replace_head(model, tensors, head, where)
        values = {**values, **head}
    for name, value in values.items():
        _check(name, value, tensors, where)
    new = {id(tensors[name]): value for name, value in values.items()}  # one message, one object while `tensors` lives
    side = _SideFile(path.with_name(f"{path.name}.data"))
    external = ExternalData(path_of(source))
    for tensor in _tensors(model.graph):
        value = new.get(id(tensor))
        if tensor.data_location == TensorProto.EXTERNAL:
            side.take(tensor, read_external(tensor, external) if value is None else value)
        elif value is not None:
            write_tensor(tensor, value)
    if model.ByteSize() > MAX_PROTOBUF:
        raise UserError("E0107", "the model would be larger than 2 GiB, the limit of protobuf", where=where)
    try:
        if side.parts:
            _write(side.path, side.parts)
        _write(path, [model.SerializeToString()])
    except OSError as error:
        raise UserError("E0505", f"the model cannot be written: {error.strerror}", where=str(path)) from None


class _SideFile:
    """External tensors, one after the other, each at the start of a page."""

    def __init__(self, path: Path):
        self.path = path
        self.parts: list[bytes | np.ndarray] = []
        self._size = 0

    def take(self, tensor: TensorProto, array: np.ndarray) -> None:
        gap = -self._size % _ALIGNMENT
        data = write_tensor_externally(tensor, array, self.path.name, self._size + gap)
        self.parts += [bytes(gap), data]
        self._size += gap + data.nbytes


def _check(name: str, value: np.ndarray, tensors: Mapping[str, TensorProto], where: str) -> None:
    _require(name, tensors, where)
    tensor = tensors[name]
    if tuple(tensor.dims) != value.shape:
        message = f"`{name}` has the shape {list(value.shape)}, in the model {list(tensor.dims)}"
        raise UserError("E0603", message, where=where)
    dtype = numpy_dtype(tensor.data_type)
    if isinstance(dtype, Opaque) or not np.can_cast(value.dtype, dtype, "same_kind"):
        wanted = dtype.what if isinstance(dtype, Opaque) else dtype
        raise UserError("E0602", f"`{name}` is {value.dtype}, in the model {wanted}", where=where)


def _require(name: str, tensors: Mapping[str, TensorProto], where: str) -> None:
    if name not in tensors:
        raise UserError("E0601", f"the model has no initializer `{name}`", where=where)


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    """The initializers, and the tensors in attributes, of a graph and of the graphs inside it."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)


def _write(path: Path, parts: Iterable[bytes | np.ndarray]) -> None:
    """Under another name first: who looks sees the old file or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
