"""A training step of an artifact against torch: the loss, and what one step changes in every trained parameter."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgec.compiler.parameter_groups import ParameterGroup, weights_of
from edgec.compiler.passes.activate_dropout import SEED
from edgec.compiler.passes.replace_head import HEAD
from edgec.compiler.sparse.scheme import LORA_A, LORA_B
from edgec.frontend.onnx import read_onnx
from edgec.frontend.torch import is_torch, read_torch
from edgec.graph.errors import UserError
from edgec.runtime import Model
from edgec.runtime.parts import Parts
from edgec.tools.verify import Difference, compare, model_feeds

if TYPE_CHECKING:
    from edgec.tools.torch_step import TorchModel

# A rate of 1 makes the change of a parameter its gradient, with as many digits as f32 leaves.
_RATE = 1.0
CHANGE, GRADIENT = " change", " gradient"

Arrays = dict[str, np.ndarray]


def compare_step(opened: Model, feeds: Mapping[str, np.ndarray], source: Path, manifest: Mapping) -> list[Difference]:
    """Rows for `loss` and for each trained parameter. `opened` takes the step and keeps it; it must be fresh.

    torch computes in double precision, with the loss, optimizer and batch norm of the artifact. Rules that divide by a
    gradient's own size (Adam, Lion) say nothing of it where it is all rounding: their gradients are compared, which the
    averages hold, and then the change, with torch's optimizer given the artifact's gradients.

    Of a weight with low-rank adapters these are compared; their gradients follow from that of the weight. B begins as
    zeros, so the first step leaves A as it is. A new head takes its weights with it to torch.

    UserError E0402 without torch, E0106 for a model that torch cannot run so, E0606 without a train program.
    """
    if importlib.util.find_spec("torch") is None:
        hint = "pip install torch --index-url https://download.pytorch.org/whl/cpu"
        raise UserError("E0402", "torch is not installed, which takes the step to compare with", hint=hint)
    _refuse_others(opened, source)
    rule, initial, before = manifest["train"], opened.parameters(), _trained(opened)
    for _ in range(rule["accumulate"]):  # the mean over the same batch again
        loss = opened.step(feeds, lr=_RATE)
    changes = {name: after.astype(np.float64) - before[name] for name, after in _trained(opened).items()}
    chosen = _elements(opened, before)
    averages = _averages(rule, opened, before)
    labels = {name for name in feeds if name == rule["labels"] or name.startswith(f"{rule['labels']}.")}
    inputs = model_feeds({name: array for name, array in feeds.items() if name not in labels}, manifest)
    given = {name: feeds[name] for name in labels}
    try:
        model = _torch_model(source, manifest, initial)
        expected_loss, gradients, moved = _torch_gradients(model, rule, inputs, given, opened, before)
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


def _adapter(opened: Model, name: str) -> tuple[str, str, float] | None:
    return opened.parts[name].adapter if name in opened.parts else None


def _trained(opened: Model) -> Arrays:
    """What the optimizer changes, by name: parameters of the source model, and adapters in the place of theirs."""
    parameters, adapters = opened.parameters(), opened.adapters()
    found = {}
    for name in opened.trained:
        adapter = _adapter(opened, name)
        if adapter is None:
            found[name] = parameters[name]
        else:
            left, right, scale = adapter
            factors = {max(left, right): scale}  # `adapters` has it in B
            found |= {part: adapters[part] / np.float32(factors.get(part, 1)) for part in (left, right)}
    return found


def _elements(opened: Model, trained: Arrays) -> Arrays:
    """Which elements of them change."""
    names = set(opened.trained)
    return {n: opened.trained_elements(n) if n in names else np.ones(a.shape, bool) for n, a in trained.items()}


def _averages(rule: Mapping, opened: Model, trained: Arrays) -> Arrays:
    """Of gradients, by name; none for plain SGD. Elements that do not change have zeros."""
    if rule["optimizer"] == "sgd":
        return {}
    states = {name.removesuffix("/exp_avg"): a for name, a in opened.states().items() if name.endswith("/exp_avg")}
    found = {name: states[name] for name in trained if name in states}
    for name, parts in opened.parts.items():
        if any(piece in states for piece in parts.pieces):
            found[name] = parts.joined(_with_rest(parts, states, trained[name].shape).__getitem__)
    return found


def _with_rest(parts: Parts, states: Arrays, shape: tuple[int, ...]) -> Arrays:
    """Arrays for all pieces of a parameter of `shape`; zeros for the one that has no state."""
    found = {piece: states[piece] for piece in parts.pieces if piece in states}
    extents = list(shape)
    extents[parts.axis] -= sum(array.shape[parts.axis] for array in found.values())
    return {piece: found.get(piece, np.zeros(extents, np.float32)) for piece in parts.pieces}


def _torch_model(source: Path, manifest: Mapping, initial: Arrays) -> TorchModel:
    """The source model; with the artifact's head, if that is another. `initial`: the artifact's parameters."""
    from edgec.tools.torch_step import read_model, with_head  # noqa: PLC0415  loads torch

    model = read_model(source, manifest["train"]["batch_norm"])
    if not manifest.get("new_head"):
        return model
    found = {name: array for name, array in initial.items() if name not in model.parameters}
    heads = {name.removesuffix(HEAD): array for name, array in found.items() if name.endswith(HEAD)}
    return with_head(model, {name: array for name, array in heads.items() if name in model.parameters}, HEAD)


def _torch_gradients(
    model: TorchModel, rule: Mapping, inputs: Arrays, labels: Arrays, opened: Model, trained: Arrays
) -> tuple[float, Arrays, Arrays]:
    """(loss, gradients as the optimizer gets them, changes of running statistics)."""
    from edgec.tools.torch_step import adapter_of, clipped_gradients, loss_of  # noqa: PLC0415  loads torch

    names = opened.trained
    for name, parameter in model.parameters.items():
        parameter.requires_grad_(name in names)
    statistics = {name: buffer.numpy().copy() for name, buffer in model.buffers.items() if name in names}
    loss = loss_of(rule, model, inputs, labels)
    loss.backward()
    moved = {name: model.buffers[name].numpy() - old for name, old in statistics.items()}
    chosen = {}
    for name in names:
        adapter = _adapter(opened, name)
        if adapter is not None:
            left, right, scale = adapter
            (piece,) = opened.parts[name].pieces
            gradient = model.parameters[name].grad.numpy()
            gradient = opened.parts[name].cut(gradient, {piece: gradient.shape[opened.parts[name].axis]})[piece]
            pair = adapter_of(gradient, trained[left], trained[right], scale)
            chosen |= dict(zip((left, right), pair, strict=True))
        elif name not in moved:
            chosen[name] = model.parameters[name]
    return loss.item(), clipped_gradients(rule, chosen, _elements(opened, trained)), moved


def _rates_and_decays(source: Path, rule: Mapping, inputs: Arrays, names: Mapping) -> tuple[Arrays, Arrays]:
    """Of each parameter, by its group and by whether it is a weight at all."""
    weights = set(names)  # adapters of weights are weights
    if rule["decay"] == "weights":
        read = read_torch if is_torch(source) else read_onnx
        shapes = {} if is_torch(source) else {"shapes": {name: array.shape for name, array in inputs.items()}}
        read_weights = weights_of(read(source, **shapes).programs["infer"])
        weights = {name for name in names if name.removesuffix(HEAD) in read_weights or name.endswith((LORA_A, LORA_B))}
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
    if rule["optimizer"] == "sgd":
        return _rows(changes, _changes(rule, before, expected, rates, decays, trained), CHANGE)
    new = 1 - rule["betas"][1 if rule["optimizer"] == "lion" else 0]
    ours = {name: averages[name].astype(np.float64) / new for name in expected}
    if rule["optimizer"] == "adam":  # its decay is part of the gradient
        ours = {name: gradient - decays[name] * before[name] * trained[name] for name, gradient in ours.items()}
    return [
        *_rows(ours, expected, GRADIENT),
        *_rows(changes, _changes(rule, before, ours, rates, decays, trained), CHANGE),
    ]


def _changes(
    rule: Mapping, before: Arrays, gradients: Arrays, rates: Arrays, decays: Arrays, trained: Arrays
) -> Arrays:
    """Of the elements that are trained, by torch's optimizer."""
    from edgec.tools.torch_step import first_step  # noqa: PLC0415  loads torch

    steps = first_step(rule, before, gradients, rates, decays)
    return {name: step * trained[name] for name, step in steps.items()}


def _rows(ours: Mapping[str, np.ndarray], theirs: Arrays, kind: str) -> list[Difference]:
    return [row for name, array in theirs.items() for row in compare({name + kind: ours[name]}, {name + kind: array})]
