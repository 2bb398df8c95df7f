"""ONNX file, bytes or `ModelProto` to a `Model`. Everything here is hostile until checked: only UserError gets out.

With `tensors.py` and `functions.py` the only code of edgec that knows the protobuf classes of onnx.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path

from google.protobuf.message import DecodeError
from onnx import (
    AttributeProto,
    FunctionProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    defs,
)

from edgec.frontend.onnx.model import (
    Attribute,
    Body,
    Dim,
    Function,
    FunctionKey,
    Input,
    Model,
    Node,
    Opaque,
    Reference,
    in_order,
)
from edgec.frontend.onnx.tensors import FLOATS, ExternalData, numpy_dtype, read_sparse, read_tensor
from edgec.frontend.onnx.upgrade import OLDEST_OPSET, upgraded
from edgec.graph.errors import UserError
from edgec.graph.types import DType

Source = str | Path | bytes | ModelProto

NEWEST_OPSET = defs.onnx_opset_version()
_NO_SYMBOLS = ("", "?", "*", "-1", "None")  # how exporters write that they do not know
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
MAX_PROTOBUF = 2**31 - 1  # bytes: the limit of the format


def read_model(source: Source) -> Model:
    """The model as plain data.

    UserError: E0101 not ONNX, E0102 truncated or damaged, E0106 unreadable, E0107 above 2 GiB, E0103 where the opset is
    out of range.
    """
    label = label_of(source)
    proto = read_proto(source)
    try:
        return _to_model(upgraded(proto, label), ExternalData(path_of(source)), label)
    except UnicodeDecodeError:
        raise UserError("E0102", "a name in the model is not text", where=label) from None
    except UserError as error:
        error.where = error.where or label
        raise


def read_proto(source: Source) -> ModelProto:
    """The protobuf message itself, its graph and opset present. A path is read once."""
    if isinstance(source, ModelProto):
        return source
    label = label_of(source)
    data = source if isinstance(source, bytes) else _read_file(Path(source))
    if not data:
        raise UserError("E0101", "the file is empty", where=label)
    # A model's first field is its format version, a small number: every writer puts it there.
    looks_like_onnx = data[0] == 0x08 and len(data) > 1 and 0 < data[1] < 0x40
    try:
        proto = ModelProto.FromString(data)
    except DecodeError:
        if not looks_like_onnx:
            raise UserError("E0101", "the file is not an ONNX model", where=label) from None
        raise UserError(
            "E0102", f"the model ends early or is damaged ({len(data)} bytes)", where=label, hint="fetch the file again"
        ) from None
    if not proto.HasField("graph") and not looks_like_onnx:
        raise UserError("E0101", "the file is not an ONNX model", where=label)
    if not proto.HasField("graph") or not proto.opset_import:
        missing = "opset" if proto.HasField("graph") else "graph"
        message = f"the model ends before its {missing} ({len(data)} bytes)"
        raise UserError("E0102", message, where=label, hint="fetch the file again")
    return proto


def label_of(source: Source) -> str:
    """How errors call the model."""
    return str(source) if isinstance(source, str | Path) else "the given model"


def path_of(source: Source) -> Path | None:
    """The model's file, beside which its external data lies; None if nobody knows."""
    return Path(source) if isinstance(source, str | Path) else None


def model_tensors(graph: GraphProto) -> dict[str, TensorProto]:
    """What the model holds as tensors, by name: its initializers.

    Some exporters (Paddle's for years) write none and put every weight into a `Constant` node. So in a model without
    float initializers the float tensors of those nodes count, under the names of their outputs.
    """
    tensors: dict[str, TensorProto] = {}
    for tensor in graph.initializer:
        if tensor.name in tensors:
            raise UserError("E0102", f"two initializers have the name `{tensor.name}`")
        tensors[tensor.name] = tensor
    if any(_is_weight(tensor) for tensor in graph.initializer):
        return tensors
    for node in graph.node:
        if node.op_type == "Constant" and len(node.output) == 1 and node.output[0] not in tensors:
            values = [a.t for a in node.attribute if a.name == "value" and a.type == AttributeProto.TENSOR]
            if len(values) == 1 and _is_weight(values[0]):
                tensors[node.output[0]] = values[0]
    return tensors


def _is_weight(tensor: TensorProto) -> bool:
    return tensor.data_type in FLOATS and math.prod(tensor.dims) > 1


def _read_file(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():
            raise UserError("E0106", "this is not a file", where=str(path))
        if path.stat().st_size > MAX_PROTOBUF:
            raise UserError(
                "E0107",
                "the file is larger than 2 GiB, the limit of protobuf",
                where=str(path),
                hint="save the model with external data: onnx.save(model, path, save_as_external_data=True)",
            )
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError("E0106", f"the model cannot be read: {reason}", where=str(path)) from None


def _to_model(proto: ModelProto, external: ExternalData, label: str) -> Model:
    opsets = _opsets(proto)
    opset = opsets.get("", 0)
    if not OLDEST_OPSET <= opset <= NEWEST_OPSET:
        raise UserError(
            "E0103",
            f"the model has opset {opset}; edgec imports opsets 1 to {NEWEST_OPSET}",
            where=label,
            hint="convert it with onnx.version_converter.convert_version",
        )
    graph = proto.graph
    initializers = {name: read_tensor(tensor, external) for name, tensor in model_tensors(graph).items()}
    for sparse in graph.sparse_initializer:
        if sparse.values.name in initializers:
            raise UserError("E0102", f"two initializers have the name `{sparse.values.name}`")
        initializers[sparse.values.name] = read_sparse(sparse, external)
    # Old models list initializers as inputs too: those are defaults, which nobody overrides here.
    _names((*initializers, *(info.name for info in graph.input)))
    inputs = tuple(_to_input(info) for info in graph.input if info.name not in initializers)
    if len({item.name for item in inputs}) < len(inputs):
        raise UserError("E0102", "two inputs have the same name")
    outputs = _names(info.name for info in graph.output)
    if not outputs or len(set(outputs)) < len(outputs):
        raise UserError("E0102", "two outputs have the same name" if outputs else "the model has no outputs")
    nodes = in_order(
        [
            _to_node(node, opsets, external)
            for node in graph.node
            if not (node.op_type == "Constant" and initializers.keys() & set(node.output))
        ],
        {*initializers, *(item.name for item in inputs)},
    )
    functions = dict(_to_function(function, opsets, external) for function in proto.functions)
    if len(functions) < len(proto.functions):
        raise UserError("E0102", "two functions have the same name")
    return Model(label, opset, inputs, outputs, initializers, nodes, functions)


def _names(names: Iterable[str | bytes]) -> tuple[str, ...]:
    """Names of values, which people will read on a terminal; UserError E0102 where that would not be good for them."""
    checked = tuple(names)
    for name in checked:
        if not isinstance(name, str):  # as protobuf gives what is no UTF-8
            raise UserError("E0102", f"the name {name[:80]!r} in the model is not text")
        if _CONTROL.search(name):
            raise UserError("E0102", f"the name {name[:80]!r} in the model has control characters")
    return checked


def _label(name: str | bytes) -> str:
    """A name that only stands in messages."""
    return _CONTROL.sub("?", name if isinstance(name, str) else name.decode(errors="replace"))


def _opsets(proto: ModelProto | FunctionProto) -> dict[str, int]:
    return {_domain(entry.domain): entry.version for entry in proto.opset_import}


def _domain(name: str | bytes) -> str:
    """The standard's operators have two spellings."""
    return "" if name == "ai.onnx" else _label(name)


def _to_function(proto: FunctionProto, opsets: dict[str, int], external: ExternalData) -> tuple[FunctionKey, Function]:
    opsets = opsets | _opsets(proto)
    body = Body(
        inputs=_names(proto.input),
        outputs=_names(proto.output),
        initializers={},
        nodes=in_order([_to_node(node, opsets, external) for node in proto.node], proto.input),
    )
    if len(set(body.inputs)) < len(body.inputs):
        raise UserError("E0102", f"two inputs of function `{_label(proto.name)}` have the same name")
    defaults: dict[str, Attribute | None] = dict.fromkeys(map(_label, proto.attribute))
    defaults |= {_label(item.name): _to_attribute(item, opsets, external) for item in proto.attribute_proto}
    key = _domain(proto.domain), _label(proto.name), _label(proto.overload)
    return key, Function(opsets.get("", 0), body, defaults)


def _to_input(info: ValueInfoProto) -> Input:
    kind = info.type.WhichOneof("value")
    if kind != "tensor_type":
        return Input(info.name, Opaque(f"a {kind.removesuffix('_type')}" if kind else "a value without a type"), None)
    tensor = info.type.tensor_type
    dtype = numpy_dtype(tensor.elem_type)
    if not isinstance(dtype, Opaque):
        try:
            dtype = DType.of(dtype)
        except KeyError:
            dtype = Opaque(f"a tensor of dtype {dtype}")
    dims: list[Dim] = []
    for dim in tensor.shape.dim:
        # Zero and -1 are how some exporters spell an unknown dimension.
        size = dim.dim_value if dim.WhichOneof("value") == "dim_value" else 0
        symbol = dim.dim_param if dim.WhichOneof("value") == "dim_param" else ""
        dims.append(size if size > 0 else symbol if symbol not in _NO_SYMBOLS else None)
    return Input(info.name, dtype, tuple(dims) if tensor.HasField("shape") else None)


def to_body(graph: GraphProto, opsets: dict[str, int], external: ExternalData) -> Body:
    """A graph in an attribute, or one that only wraps nodes."""
    inputs = _names(info.name for info in graph.input)
    initializers = {
        **{tensor.name: read_tensor(tensor, external) for tensor in graph.initializer},
        **{sparse.values.name: read_sparse(sparse, external) for sparse in graph.sparse_initializer},
    }
    nodes = in_order([_to_node(node, opsets, external) for node in graph.node], {*inputs, *initializers})
    return Body(inputs, _names(info.name for info in graph.output), initializers, nodes)


def _to_node(node: NodeProto, opsets: dict[str, int], external: ExternalData) -> Node:
    domain = _domain(node.domain)
    inputs = list(_names(node.input))
    while inputs and not inputs[-1]:
        inputs.pop()
    return Node(
        op=_label(node.op_type),
        domain=domain,
        opset=opsets.get(domain, 0),
        name=_label(node.name),
        inputs=tuple(inputs),
        outputs=_names(node.output),
        attributes={_label(attribute.name): _to_attribute(attribute, opsets, external) for attribute in node.attribute},
        overload=_label(node.overload),
    )


def _to_attribute(attribute: AttributeProto, opsets: dict[str, int], external: ExternalData) -> Attribute:
    if attribute.ref_attr_name:
        return Reference(_label(attribute.ref_attr_name))
    match attribute.type:
        case AttributeProto.INT:
            return attribute.i
        case AttributeProto.FLOAT:
            return attribute.f
        case AttributeProto.STRING:
            return attribute.s.decode()
        case AttributeProto.INTS:
            return tuple(attribute.ints)
        case AttributeProto.FLOATS:
            return tuple(attribute.floats)
        case AttributeProto.STRINGS:
            return tuple(item.decode() for item in attribute.strings)
        case AttributeProto.TENSOR:
            return read_tensor(attribute.t, external)
        case AttributeProto.SPARSE_TENSOR:
            return read_sparse(attribute.sparse_tensor, external)
        case AttributeProto.GRAPH:
            return to_body(attribute.g, opsets, external)
        case _:
            return Opaque("an attribute of an unknown type")
