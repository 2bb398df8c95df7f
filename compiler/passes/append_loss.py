"""Pass `append_loss`: makes the programs `train` and `eval` from `infer`: the train batch, label inputs, the loss.

A model that ends in softmax (for binary cross entropy, sigmoid) trains on its logits. `train` hands out the loss alone;
`eval` the model's outputs too, and where rows do not count alike (class weights, an ignored index) their weight.

Requires NO_BATCH_NORM. Ensures LOSS.
"""

from __future__ import annotations

from edgec.compiler.losses import Loss, LossBuilder, WholeBatchLoss, refusal
from edgec.compiler.passbase import Options
from edgec.compiler.rebatch import batch_of, rebatch
from edgec.compiler.rewrite import reserve
from edgec.compiler.train import Train
from edgec.graph.errors import UserError
from edgec.graph.ir import Graph, Module, Role, Value
from edgec.graph.ops.batch_norm import BatchNorm
from edgec.graph.ops.div import Div
from edgec.graph.ops.reshape import Reshape

LOSS = "loss"
WEIGHT = "loss.weight"


def append_loss(module: Module, options: Options) -> bool:
    train = options.train
    if train is None:
        return False
    infer = module.programs["infer"]
    if LOSS in infer.outputs and train.loss != f"output:{LOSS}":
        raise UserError("E0302", f"the model has an output called `{LOSS}`, the name of the training loss")
    names = _scored_names(infer, train)
    program, axes = _rebatched(infer, train, names)
    scored = {name: program.outputs[name].name for name in names}
    program.outputs = {name: program.outputs[name] for name in infer.outputs}
    copy = program.clone("train")
    mixed = train.batch_norm == "train" and not _images_stay_apart(copy)
    _append(program, train, scored, axes, LossBuilder)
    _append(copy, train, scored, axes, WholeBatchLoss if mixed else LossBuilder)
    copy.outputs, copy.counts = {LOSS: copy.outputs[LOSS]}, {}
    if train.class_weights or train.ignore_index is not None:
        _hand_out_weight(program)
    module.programs["train"], module.programs["eval"] = copy, program
    return True


def _images_stay_apart(graph: Graph) -> bool:
    """Whether the leading axis of what each norm takes statistics of is the batch: then images can be left out."""
    batches = {leaf.type.shape[:1] for leaf in graph.by_role(Role.INPUT)}
    norms = [node for node in graph.nodes if isinstance(node.op, BatchNorm)]
    return all({node.inputs[0].type.shape[:1]} == batches for node in norms)


def _append(
    program: Graph, train: Train, scored: dict[str, str], axes: dict[str, int | None], kind: type[LossBuilder]
) -> None:
    named = {value.name: value for value in program.values()}
    loss = _loss(program, train, {name: named[value] for name, value in scored.items()}, axes, kind)
    reserve(program, LOSS, "the training loss")
    if loss.weight is None:
        program.outputs[LOSS] = program.emit1(Reshape(()), loss.total, name=LOSS)
    else:
        reserve(program, WEIGHT, "the weight of the rows in the loss")
        program.rename(loss.weight, WEIGHT)
        program.outputs[LOSS] = program.emit1(Div(), loss.total, loss.weight, name=LOSS)
    program.loss = LOSS


def _hand_out_weight(program: Graph) -> None:
    """Of the rows of a batch, where they do not count alike: the mean over several batches needs it."""
    weight = total_and_weight(program)[1]
    if WEIGHT in program.outputs:
        raise UserError("E0302", f"the model has an output called `{WEIGHT}`, the name of one of evaluation")
    if weight is not None:
        program.outputs[WEIGHT] = weight


def total_and_weight(graph: Graph) -> tuple[Value, Value | None]:
    """The two halves of the program's loss, see `losses.Loss`."""
    node = graph.outputs[graph.loss].producer
    if isinstance(node.op, Div) and node.inputs[1].name == WEIGHT:
        return node.inputs[0], node.inputs[1]
    return graph.outputs[graph.loss], None


def _scored_names(infer: Graph, train: Train) -> list[str]:
    """Outputs, or else values by name, on which the loss is taken. UserError E0302 for names that are not there."""
    kind, _, listed = train.loss.partition(":")
    if not listed:
        return [next(iter(infer.outputs))]
    values = {value.name: value for node in infer.nodes for value in node.outputs}
    names = list(dict.fromkeys(listed.split(",") if kind == "sum_mse" else [listed]))
    for name in names:
        if name not in infer.outputs and (kind == "output" or name not in values):
            hint = f"the model's outputs are {', '.join(infer.outputs)}"
            raise UserError("E0302", f"the model has no value called `{name}`", where=f"loss {train.loss}", hint=hint)
    return names


def _rebatched(infer: Graph, train: Train, names: list[str]) -> tuple[Graph, dict[str, int | None]]:
    """`infer` at the train batch, with the named values among its outputs; and where those hold the batch."""
    source = infer.clone()
    values = {value.name: value for node in source.nodes for value in node.outputs}
    source.outputs |= {name: values[name] for name in names if name not in source.outputs}
    if train.loss.startswith("output:") and train.batch is None:
        return source.clone("eval"), dict.fromkeys(names, 0)
    batch = train.batch or batch_of(infer)
    return rebatch(source, batch, "eval")


def _loss(
    program: Graph, train: Train, values: dict[str, Value], axes: dict[str, int | None], builder_of: type[LossBuilder]
) -> Loss:
    kind = train.loss.partition(":")[0]
    if kind == "output":
        ((name, value),) = values.items()
        return builder_of(program, train, 1).of_model(name, value)
    batch = train.batch or batch_of(program)
    for name, value in values.items():
        if axes[name] != 0 or not value.type.rank or value.type.shape[0] != batch or not value.type.dtype.is_float:
            raise refusal(name, value, batch)
    builder = builder_of(program, train, batch)
    if kind == "sum_mse":
        losses = [builder.elementwise(value, f"{train.labels}.{name}") for name, value in values.items()]
        return builder.sum(losses)
    ((name, value),) = values.items()
    if kind == "softmax_cross_entropy":
        return builder.classification(name, value)
    return builder.elementwise(value, train.labels)
