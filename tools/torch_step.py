"""A model in torch and a step of training there, in double precision: what `edgec verify --train` compares with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor
from torch.nn import functional as F

from edgec.frontend.torch.archive import load_archive
from edgec.frontend.torch.program import output_names, quiet
from edgec.tools.testing.torch_model import OnnxTwin

Rule = Mapping[str, Any]  # `train` of a manifest: the fields of `edgec.compiler.train.Train`
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class TorchModel:
    """`run` takes inputs by name and gives values by name; `first` is the model's first output.

    Parameters and running statistics have the names that edgec has for them. `ends_in` is "softmax" or "sigmoid" where
    that makes the first output.
    """

    run: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]
    first: str
    parameters: Mapping[str, Tensor]
    buffers: Mapping[str, Tensor]
    ends_in: str


def read_model(source: Path, batch_norm: str) -> TorchModel:
    """Of an ONNX or a `.pt2` file. NotImplementedError and KeyError for what the twin of an ONNX model has not."""
    if source.suffix != ".pt2":
        return _of_onnx(onnx.load(source), batch_norm)
    if batch_norm == "train":
        raise NotImplementedError("an exported program has its norms frozen")
    return _of_program(source)


def _of_onnx(model: onnx.ModelProto, batch_norm: str) -> TorchModel:
    twin = OnnxTwin(model).double().train(batch_norm == "train")
    last = next(node for node in reversed(model.graph.node) if node.op_type != "Identity").op_type.lower()
    first = model.graph.output[0].name
    return TorchModel(
        lambda feeds: twin.values(*feeds.values()),
        first,
        twin.named_onnx_parameters(),
        twin.named_onnx_buffers(),
        last,
    )


def _of_program(source: Path) -> TorchModel:
    exported = load_archive(source)
    with quiet():
        module = exported.module(check_guards=False).double()
    nodes = [node for node in exported.graph.nodes if node.op == "call_function"]
    inputs = {node.name: node.meta["val"].shape for node in exported.graph.nodes if node.op == "placeholder"}
    spec = exported.call_spec.out_spec
    names = output_names(spec, spec.num_leaves)

    def run(feeds: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """In pieces of the batch that the program was exported with."""
        sizes = [inputs[name][0] for name in feeds]
        piece = sizes[0] if isinstance(sizes[0], int) else len(next(iter(feeds.values())))
        parts = zip(*(x.split(piece) for x in feeds.values()), strict=True)
        with quiet():
            results = [torch.utils._pytree.tree_leaves(module(*part)) for part in parts]
        return {name: torch.cat(values) for name, values in zip(names, zip(*results, strict=True), strict=True)}

    last = str(nodes[-1].target)
    ends_in = next((kind for kind in ("log_softmax", "softmax", "sigmoid") if kind in last), "")
    return TorchModel(run, names[0], dict(module.named_parameters()), dict(module.named_buffers()), ends_in)


def with_head(model: TorchModel, heads: Arrays, suffix: str) -> TorchModel:
    """The model with other values, of any shape, for some parameters, whose names then end in `suffix`."""
    parameters = dict(model.parameters)
    for name, array in heads.items():
        parameters[name].data = _double(array)
        parameters[name + suffix] = parameters.pop(name)
    return replace(model, parameters=parameters)


def adapter_of(gradient: np.ndarray, left: np.ndarray, right: np.ndarray, scale: float) -> list[torch.nn.Parameter]:
    """The two factors of what comes on top of a weight, with gradients that follow from the weight's."""
    first, second = (_double(array.reshape(array.shape[:2])) for array in (left, right))
    product = scale * _double(gradient).reshape(len(first), second.shape[1])
    pair = [torch.nn.Parameter(_double(array)) for array in (left, right)]
    for parameter, found in zip(pair, (product @ second.T, first.T @ product), strict=True):
        parameter.grad = found.reshape(parameter.shape)
    return pair


def loss_of(rule: Rule, model: TorchModel, inputs: Arrays, labels: Arrays) -> Tensor:
    """The loss that `rule` asks for, of `inputs` and `labels` by name."""
    values = model.run({name: _double(array) for name, array in inputs.items()})
    kind, _, listed = rule["loss"].partition(":")
    if kind == "output":
        return values[listed].reshape(())
    if kind == "sum_mse":
        names = listed.split(",")
        return sum(F.mse_loss(values[name], _double(labels[f"{rule['labels']}.{name}"])) for name in names)
    output, target = values[model.first], _double(labels[rule["labels"]])
    if kind == "softmax_cross_entropy":
        # log(softmax(x)) is x but for a constant for each row, which a softmax does not see.
        return _cross_entropy(rule, torch.log(output) if model.ends_in == "softmax" else output, target)
    if kind == "bce_logits":
        return F.binary_cross_entropy_with_logits(torch.logit(output) if model.ends_in == "sigmoid" else output, target)
    if kind == "huber":
        return F.huber_loss(output, target, delta=rule["huber_delta"])
    return {"mse": F.mse_loss, "l1": F.l1_loss}[kind](output, target)


def _cross_entropy(rule: Rule, scores: Tensor, target: Tensor) -> Tensor:
    longer = [extent for extent in scores.shape[1:] if extent != 1]
    if len(longer) <= 1:
        scores = scores.flatten(1)
        target = target.reshape(scores.shape if rule["targets"] == "probabilities" else len(scores))
    else:
        scores = scores.movedim(rule["class_axis"], 1)
        target = target.movedim(rule["class_axis"], 1) if rule["targets"] == "probabilities" else target
    weights = torch.tensor(rule["class_weights"], dtype=torch.float64) if rule["class_weights"] else None
    ignored = {} if rule["ignore_index"] is None else {"ignore_index": rule["ignore_index"]}
    return F.cross_entropy(scores, target, weight=weights, label_smoothing=rule["label_smoothing"], **ignored)


def clipped_gradients(rule: Rule, trained: Mapping[str, Tensor], elements: Arrays) -> dict[str, np.ndarray]:
    """What the optimizer sees of the chosen elements. A parameter that the loss does not depend on has zeros."""
    for name, parameter in trained.items():
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        parameter.grad = gradient * torch.from_numpy(elements[name])
    if rule["clip_norm"] is not None:
        torch.nn.utils.clip_grad_norm_(trained.values(), rule["clip_norm"])
    if rule["clip_value"] is not None:
        torch.nn.utils.clip_grad_value_(trained.values(), rule["clip_value"])
    return {name: parameter.grad.numpy().copy() for name, parameter in trained.items()}


class Lion(torch.optim.Optimizer):
    """Chen et al., Symbolic discovery of optimization algorithms, 2023; the first step, from averages of zero."""

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.sub_(group["lr"] * torch.sign((1 - group["betas"][0]) * p.grad))


def first_step(rule: Rule, before: Arrays, gradients: Arrays, rates: Arrays, decays: Arrays) -> dict[str, np.ndarray]:
    """What the optimizer's first step adds to each parameter, by torch.optim, with a rate and a decay for each."""
    parameters = {name: torch.nn.Parameter(_double(before[name])) for name in gradients}
    groups = [
        {"params": [parameter], "lr": float(rates[name]), "weight_decay": float(decays[name])}
        for name, parameter in parameters.items()
    ]
    betas = {"betas": tuple(rule["betas"])}
    match rule["optimizer"]:
        case "sgd":
            optimizer: torch.optim.Optimizer = torch.optim.SGD(
                groups, lr=1.0, momentum=rule["momentum"], nesterov=rule["nesterov"]
            )
        case "adam":
            optimizer = torch.optim.Adam(groups, lr=1.0, eps=rule["epsilon"], **betas)
        case "adamw":
            optimizer = torch.optim.AdamW(groups, lr=1.0, eps=rule["epsilon"], **betas)
        case _:
            optimizer = Lion(groups, betas)
    for name, parameter in parameters.items():
        parameter.grad = _double(gradients[name])
    optimizer.step()
    return {name: parameter.detach().numpy() - before[name] for name, parameter in parameters.items()}


def _double(array: np.ndarray) -> Tensor:
    """Floats in double precision, integers as they are."""
    array = np.ascontiguousarray(array)
    floats = array.dtype.kind == "f" or array.dtype.name == "bfloat16"
    return torch.from_numpy(array.astype(np.float64) if floats else array.copy())
