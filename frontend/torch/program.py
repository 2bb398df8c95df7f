"""An exported program as a `Program`: decomposed as far as there are no converters, names as the user knows them."""

from __future__ import annotations

import contextlib
import logging
import operator
import re
import warnings
from collections.abc import Collection, Iterator, Sequence
from pathlib import PurePosixPath

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind, TensorArgument
from torch.utils import _pytree as pytree

from edgec.frontend.torch.call import Call, Known, Program, Ref, Unsupported, part_type_of, type_of
from edgec.frontend.torch.state import tensor_key
from edgec.graph.errors import UserError
from edgec.graph.types import TensorType

_STORED = {InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR}
_FRAME = re.compile(r'File "([^"]+)", line (\d+)')
_LIBRARY = re.compile(r"[/\\]torch[/\\](nn|_\w+|utils|fx|functional|export|ao)\b")


def read_program(exported: ExportedProgram, native: Collection[str], label: str) -> Program:
    """Decompose whatever is not `native` (names as `aten.conv2d.default`), and describe the result.

    UserError E0103 for tensors that a program may not update or return, E0108 where decomposition fails, E0110.
    """
    decomposed = decompose(exported, native)
    signature = decomposed.graph_signature
    _refuse_mutation(signature, label)
    stored = _stored(decomposed)
    _refuse_devices(decomposed, stored, label)
    nodes = list(decomposed.graph.nodes)
    user_inputs = {
        spec.arg.name for spec in signature.input_specs if spec.kind is InputKind.USER_INPUT and _is_tensor(spec.arg)
    }
    inputs = {}
    for node in nodes:
        if node.op == "placeholder" and node.name in user_inputs and (node.users or _is_kept(node)):
            inputs[node.name] = _input_type(node, label)
    refs: dict[str, Ref] = {name: Ref(name) for name in (*inputs, *stored)}
    calls = []
    for node in nodes:
        if node.op != "call_function":
            continue
        refs[node.name] = Ref(node.name)
        if node.target is operator.getitem and isinstance(node.args[1], int):
            refs[node.name] = Ref(node.args[0].name, node.args[1])
            continue
        calls.append(_call(node, refs))
    return Program(label, inputs, stored, tuple(calls), _outputs(decomposed, refs, label))


def decompose(exported: ExportedProgram, native: Collection[str]) -> ExportedProgram:
    """`exported` in functional form: composite operators decomposed, in-place ones replaced, `native` ones kept."""
    table = torch.export.default_decompositions()
    for name in native:
        overload = operator.attrgetter(name)(torch.ops)
        table.pop(overload, None)
    with quiet():
        decomposed = exported.run_decompositions(table)
    _restore_dropouts(exported, decomposed)
    return decomposed


def _restore_dropouts(exported: ExportedProgram, decomposed: ExportedProgram) -> None:
    """Outside training torch decomposes dropout into a copy, and its rate is lost; a training step wants it back.

    That of whole channels (Dropout2d) leaves not even a copy, and is lost.
    """
    dropout = torch.ops.aten.dropout.default
    rates = {node.name: node.args[1] for node in exported.graph.nodes if node.target is dropout and len(node.args) > 1}
    for node in decomposed.graph.nodes:
        origins = [source.name for source in node.meta.get("from_node") or ()]
        if node.target is torch.ops.aten.clone.default and origins and origins[-1] in rates:
            # In place: the program's signature knows its results by their names.
            node.target, node.args, node.kwargs = dropout, (node.args[0], rates[origins[-1]], False), {}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without torch's deprecation warnings and logged tracebacks: what matters is in the error that we raise."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _stored(exported: ExportedProgram) -> dict[str, Known]:
    """Parameters, buffers and constants; tensors that share their memory are one, under the first name."""
    state, stored, first = exported.state_dict, {}, {}
    specs = [spec for spec in exported.graph_signature.input_specs if spec.kind in _STORED]
    # Without any gradient the flag says nothing: a model made ready for inference.
    frozen = any(p.requires_grad for p in state.values() if isinstance(p, torch.nn.Parameter))
    for spec in specs:
        tensor = state[spec.target] if spec.target in state else exported.constants[spec.target]
        key = tensor_key(tensor)
        if key not in first:
            trainable = spec.kind is InputKind.PARAMETER and (tensor.requires_grad or not frozen)
            first[key] = Known(tensor.detach(), spec.target, trainable and tensor.is_floating_point())
        stored[spec.arg.name] = first[key]
    return stored


def _refuse_mutation(signature: torch.export.ExportGraphSignature, label: str) -> None:
    lines = []
    for spec in signature.output_specs:
        if spec.kind is OutputKind.BUFFER_MUTATION:
            lines.append(
                f"  buffer `{spec.target}`: forward changes it; programs keep no state but what training updates"
            )
        elif spec.kind is OutputKind.USER_INPUT_MUTATION:
            lines.append(f"  input `{spec.target}`: forward changes it in place")
    if lines:
        hint = "return the new value as an output, and give it as an input the next time"
        if "running_mean" in str(lines):
            hint = "export the module after module.eval(): batch norm in training mode updates its statistics"
        raise UserError("E0103", "\n".join(["the model writes to its tensors:", *lines]), where=label, hint=hint)


def _refuse_devices(exported: ExportedProgram, stored: dict[str, Known], label: str) -> None:
    found = {known.name: known.tensor.device for known in stored.values() if known.tensor.device.type != "cpu"}
    for node in exported.graph.nodes:
        value = node.meta.get("val")
        if node.op == "placeholder" and node.name not in stored and isinstance(value, torch.Tensor):
            if value.device.type != "cpu":
                found[node.name] = value.device
    if found:
        raise off_cpu(found, label)


def off_cpu(found: dict[str, torch.device], label: str) -> UserError:
    """E0110 with the tensors and their devices."""
    names = [f"`{name}` on {device}" for name, device in found.items()]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    message = f"tensors are not on the CPU: {', '.join(names[:3])}{more}"
    hint = "module.cpu() before export"
    if any(device.type == "meta" for device in found.values()):
        hint = "tensors on `meta` have no values: load the weights, on the CPU"
    return UserError("E0110", message, where=label, hint=hint)


def _input_type(node: torch.fx.Node, label: str) -> TensorType:
    try:
        return type_of(node.meta["val"])
    except Unsupported as error:
        raise UserError("E0103", f"input `{node.name}`: {error}", where=label) from None


def _is_tensor(argument: object) -> bool:
    return isinstance(argument, TensorArgument)


def _is_kept(node: torch.fx.Node) -> bool:
    """An input that nothing reads stays one: callers give it."""
    return isinstance(node.meta.get("val"), torch.Tensor)


def _call(node: torch.fx.Node, refs: dict[str, Ref]) -> Call:
    arguments: dict[str, object] = {}
    schema = getattr(node.target, "_schema", None)
    if schema is not None:
        for index, argument in enumerate(schema.arguments):
            if index < len(node.args) and not argument.kwarg_only:
                value = node.args[index]
            else:
                value = node.kwargs.get(argument.name, argument.default_value)
            arguments[argument.name] = _argument(value, refs)
    return Call(node.name, _op_name(node.target), node.target, arguments, tuple(_results(node)), source_of(node))


def _op_name(target: object) -> str:
    if isinstance(target, torch._ops.OpOverload):
        return str(target)
    return getattr(target, "__name__", str(target))


def _argument(value: object, refs: dict[str, Ref]) -> object:
    if isinstance(value, torch.fx.Node):
        return refs.get(value.name, Ref(value.name))
    if isinstance(value, list | tuple):
        return [_argument(item, refs) for item in value]
    return value


def _results(node: torch.fx.Node) -> Iterator[TensorType | None]:
    value = node.meta.get("val")
    for item in value if isinstance(value, list | tuple) else [value]:
        try:
            yield part_type_of(item) if isinstance(item, torch.Tensor) else None
        except Unsupported:
            yield None


def source_of(node: torch.fx.Node) -> str:
    """`layer1.0.conv (model.py:12)`: the module's path, and the line of the user's code that called torch."""
    stack = node.meta.get("nn_module_stack") or {}
    path = next((entry[0] for entry in reversed(list(stack.values()))), "")
    frames = _FRAME.findall(node.meta.get("stack_trace") or "")
    own = [frame for frame in frames if not _LIBRARY.search(frame[0])] or frames
    if not own:
        return path
    file, line = own[-1]
    # The name alone: where the file lay is nobody's business, and equal models shall give equal artifacts.
    place = f"{PurePosixPath(file.replace(chr(92), '/')).name}:{line}"
    return f"{path} ({place})" if path else place


def _outputs(exported: ExportedProgram, refs: dict[str, Ref], label: str) -> dict[str, Ref]:
    """`output` for a single tensor; for a structure the keys and indices that lead to each, joined by dots."""
    specs = [spec for spec in exported.graph_signature.output_specs if spec.kind is OutputKind.USER_OUTPUT]
    names = output_names(exported.call_spec.out_spec, len(specs))
    outputs: dict[str, Ref] = {}
    for name, spec in zip(names, specs, strict=True):
        if isinstance(spec.arg, ConstantArgument):
            continue  # None, or a number
        if not _is_tensor(spec.arg) or name in outputs:
            raise UserError("E0103", f"output `{name}` is no tensor of its own", where=label)
        outputs[name] = refs[spec.arg.name]
    if not outputs:
        raise UserError("E0103", "forward returns no tensor", where=label)
    return outputs


def output_names(spec: pytree.TreeSpec | None, count: int) -> Sequence[str]:
    """The name of each leaf of what forward returns."""
    if spec is None or spec.num_leaves != count:
        return [f"output.{index}" for index in range(count)] if count > 1 else ["output"]
    paths = [path for path, _ in pytree.tree_flatten_with_path(pytree.tree_unflatten(range(count), spec))[0]]
    return [_joined([_key(part) for part in path]) for path in paths]


def _key(part: object) -> str:
    for attribute in ("key", "name", "idx"):
        if hasattr(part, attribute):
            return str(getattr(part, attribute))
    return str(part)


def _joined(keys: list[str]) -> str:
    return ".".join(keys if keys and not keys[0].isdecimal() else ["output", *keys])
