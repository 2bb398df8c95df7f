"""Pass `append_loss`: makes the programs `train` and `eval` from `infer`: the train batch, a label input, the loss.

A model that ends in softmax trains on its logits. `train` hands out the loss alone; `eval` the model's outputs too.

Requires NO_BATCH_NORM. Ensures LOSS.
"""

from __future__ import annotations

from edgec.compiler.passbase import Options
from edgec.compiler.rebatch import batch_of, rebatch
from edgec.compiler.rewrite import reshape
from edgec.compiler.train import Train
from edgec.graph.errors import InternalError, UserError
from edgec.graph.ir import Graph, Module, Role, Value
from edgec.graph.ops.reshape import Reshape
from edgec.graph.ops.softmax import Softmax
from edgec.graph.ops.softmax_cross_entropy import SoftmaxCrossEntropy
from edgec.graph.types import DType, tensor

LOSS = "loss"


def append_loss(module: Module, options: Options) -> bool:
    if options.train is None:
        return False
    infer = module.programs["infer"]
    if LOSS in infer.outputs:
        raise UserError("E0302", f"the model has an output called `{LOSS}`, the name of the training loss")
    batch = options.train.batch or batch_of(infer)
    program, axes = rebatch(infer, batch, "eval")
    name = next(iter(program.outputs))
    if axes[name] != 0:
        raise _refusal(name, program.outputs[name], batch)
    loss = _loss(program, options.train, batch)
    program.outputs[LOSS] = loss
    program.loss = LOSS
    train = program.clone("train")
    train.outputs = {LOSS: train.outputs[LOSS]}
    module.programs["train"], module.programs["eval"] = train, program
    return True


def reserve(graph: Graph, name: str, what: str) -> None:
    """Make `name` free for a leaf of ours. What the compiler named gives way; what the model named does not (E0302)."""
    for value in list(graph.values()):
        if value.name != name:
            continue
        if value.role in (Role.INPUT, Role.PARAM, Role.STATE):
            raise UserError(
                "E0302",
                f"`{name}` is the name of {what}, and of one of the model's leaves: {value.role.value} {value}",
                hint="rename it in the model; the label input's name can be chosen with `labels`",
            )
        graph.rename(value, graph.fresh_name(f"{name}.1"))


def _loss(graph: Graph, train: Train, batch: int) -> Value:
    if train.loss != "softmax_cross_entropy":
        raise InternalError(f"loss {train.loss!r} passed the check of Train")
    logits = _logits(graph, batch)
    reserve(graph, train.labels, "the label input")
    reserve(graph, LOSS, "the training loss")
    labels = graph.add_leaf(Role.INPUT, train.labels, tensor(DType.I64, batch))
    loss, _ = graph.emit(SoftmaxCrossEntropy(), logits, labels, names=(LOSS, "probabilities"))
    return loss


def _logits(graph: Graph, batch: int) -> Value:
    """The first output as [N,C], from before its softmax if it has one. UserError E0302 if it has another form."""
    name, output = next(iter(graph.outputs.items()))
    shape = output.type.shape
    longer = [axis for axis in range(1, len(shape)) if shape[axis] != 1]
    if len(shape) < 2 or shape[0] != batch or len(longer) > 1 or not output.type.dtype.is_float:
        raise _refusal(name, output, batch)
    before = output
    while before.producer is not None and isinstance(before.producer.op, Reshape):
        before = before.producer.inputs[0]
    if before.producer is not None and isinstance(before.producer.op, Softmax):
        axis = before.producer.op.axis
        if before.type.shape[axis] * batch == before.type.size and before.type.shape[0] == batch and axis:
            output = before.producer.inputs[0]
    return reshape(graph, output, (batch, output.type.size // batch))


def _refusal(name: str, output: Value, batch: int) -> UserError:
    return UserError(
        "E0302",
        f"softmax_cross_entropy needs one score for each class: output `{name}` is {output.type}, "
        f"not [{batch},classes]",
        where=f"output `{name}`",
        hint="the loss is taken on the first output of the model",
    )
