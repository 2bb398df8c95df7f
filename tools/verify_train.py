"""A training step of an artifact against torch: the loss, and what one step changes in every trained parameter."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edgec.compiler.parameter_groups import ParameterGroup, weights_of
from edgec.compiler.passes.activate_dropout import SEED
from edgec.frontend.onnx import read_onnx
from edgec.frontend.torch import is_torch, read_torch
from edgec.graph.errors import UserError
from edgec.runtime import Model
from edgec.tools.verify import Difference, compare, model_feeds

# A rate of 1 makes the change of a parameter its gradient, with as many digits as f32 leaves.
_RATE = 1.0
CHANGE, GRADIENT = " change", " gradient"

Arrays = dict[str, np.ndarray]


def compare_step(opened: Model, feeds: Mapping[str, np.ndarray], source: Path, manifest: Mapping) -> list[Difference]:
    """Rows for `loss` and for each trained parameter. `opened` takes the step and keeps it; it must be fresh.

    torch computes in double precision, with the loss, optimizer and batch norm of the artifact. Rules that divide by a
    gradient's own size (Adam, Lion) say nothing of it where it is all rounding: their gradients are compared, which the
    averages hold, and then the change, with torch's optimizer given the artifact's gradients.

    UserError E0402 without torch, E0106 for a model that torch cannot run so, E0606 without a train program.
    """
    if importlib.util.find_spec("torch") is None:
        hint = "pip install torch --index-url https://download.pytorch.org/whl/cpu"
        raise UserError("E0402", "torch is not installed, which takes the step to compare with", hint=hint)
    _refuse_others(opened, source)
    rule, before = manifest["train"], opened.parameters()
    for _ in range(rule["accumulate"]):  # the mean over the same batch again
        loss = opened.step(feeds, lr=_RATE)
    after = opened.parameters()
    changes = {name: after[name].astype(np.float64) - before[name] for name in opened.trained}
    chosen = {name: opened.trained_elements(name) for name in changes}
    averages = _averages(rule, opened, source)
    labels = {name for name in feeds if name == rule["labels"] or name.startswith(f"{rule['labels']}.")}
    inputs = model_feeds({name: array for name, array in feeds.items() if name not in labels}, manifest)
    given = {name: feeds[name] for name in labels}
    try:
        expected_loss, gradients, moved = _torch_gradients(source, rule, inputs, given, chosen)
        rates, decays = _rates_and_decays(source, rule, inputs, gradients)
    except (NotImplementedError, KeyError, ValueError, RuntimeError, TypeError) as error:
        message = f"torch cannot take the step: {type(error).__name__}: {error}".splitlines()[0]
        hint = "its twin of an ONNX model has the ops of convolutional classifiers; a .pt2 file runs as it is"
        raise UserError("E0106", message, where=str(source), hint=hint) from error
    return [
        *compare({"loss": np.array(loss)}, {"loss": np.array(expected_loss)}),
        *_rows({name: changes[name] for name in moved}, moved, CHANGE),
        *_parameter_rows(rule, before, changes, averages, gradients, rates, decays, chosen),
    ]


def _refuse_others(opened: Model, source: Path) -> None:
    if SEED in opened.states():
        message, hint = "a training step that drops out at random is not compared", "compile with --dropout off"
        raise UserError("E0106", message, where=str(source), hint=f"{hint} to compare a step")
    if opened.adapters():
        message, hint = "a training step of low-rank adapters is not compared", "compile with another --update"
        raise UserError("E0106", message, where=str(source), hint=f"{hint} to compare a step")


def _averages(rule: Mapping, opened: Model, source: Path) -> Arrays:
    """Of gradients, by parameter; none for plain SGD."""
    if rule["optimizer"] == "sgd":
        return {}
    states = opened.states()
    if opened.parts:
        message = f"`{next(iter(opened.parts))}` is trained in pieces, whose averages are not compared"
        raise UserError("E0106", message, where=str(source), hint="compile with --optimizer sgd to compare a step")
    return {name: states[f"{name}/exp_avg"] for name in opened.trained if f"{name}/exp_avg" in states}


def _torch_gradients(
    source: Path, rule: Mapping, inputs: Arrays, labels: Arrays, trained: Mapping[str, np.ndarray]
) -> tuple[float, Arrays, Arrays]:
    """(loss, gradients as the optimizer gets them, changes of running statistics). `trained`: which elements."""
    from edgec.tools.torch_step import clipped_gradients, loss_of, read_model  # noqa: PLC0415  loads torch

    model = read_model(source, rule["batch_norm"])
    for name, parameter in model.parameters.items():
        parameter.requires_grad_(name in trained)
    statistics = {name: buffer.numpy().copy() for name, buffer in model.buffers.items() if name in trained}
    loss = loss_of(rule, model, inputs, labels)
    loss.backward()
    moved = {name: model.buffers[name].numpy() - old for name, old in statistics.items()}
    chosen = {name: model.parameters[name] for name in trained if name not in moved}
    return loss.item(), clipped_gradients(rule, chosen, trained), moved


def _rates_and_decays(source: Path, rule: Mapping, inputs: Arrays, names: Mapping) -> tuple[Arrays, Arrays]:
    """Of each parameter, by its group and by whether it is a weight at all."""
    weights = set(names)
    if rule["decay"] == "weights":
        read = read_torch if is_torch(source) else read_onnx
        shapes = {} if is_torch(source) else {"shapes": {name: array.shape for name, array in inputs.items()}}
        weights = weights_of(read(source, **shapes).programs["infer"])
    groups = [ParameterGroup(**group) for group in rule["groups"]]
    rates, decays = {}, {}
    for name in names:
        group = next((group for group in groups if group.holds(name)), ParameterGroup("*"))
        usual = rule["weight_decay"] if name in weights else 0.0
        rates[name] = np.array(_RATE * group.rate)
        decays[name] = np.array(usual if group.weight_decay is None else group.weight_decay)
    return rates, decays


def _parameter_rows(
    rule: Mapping,
    before: Arrays,
    changes: Arrays,
    averages: Arrays,
    expected: Arrays,
    rates: Arrays,
    decays: Arrays,
    trained: Arrays,
) -> list[Difference]:
    from edgec.tools.torch_step import first_step  # noqa: PLC0415  loads torch

    if rule["optimizer"] == "sgd":
        steps = first_step(rule, before, expected, rates, decays)
        return _rows(changes, {name: step * trained[name] for name, step in steps.items()}, CHANGE)
    new = 1 - rule["betas"][1 if rule["optimizer"] == "lion" else 0]
    ours = {name: averages[name].astype(np.float64) / new for name in expected}
    if rule["optimizer"] == "adam":  # its decay is part of the gradient
        ours = {name: gradient - decays[name] * before[name] for name, gradient in ours.items()}
    return [
        *_rows(ours, expected, GRADIENT),
        *_rows(changes, first_step(rule, before, ours, rates, decays), CHANGE),
    ]


def _rows(ours: Mapping[str, np.ndarray], theirs: Arrays, kind: str) -> list[Difference]:
    return [row for name, array in theirs.items() for row in compare({name + kind: ours[name]}, {name + kind: array})]
