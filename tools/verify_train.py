"""A training step of an artifact against torch: the loss, and what one step changes in every trained parameter."""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from edgec.compiler.passes.activate_dropout import SEED
from edgec.graph.errors import UserError
from edgec.runtime import Model
from edgec.tools.verify import Difference, compare, model_feeds

# A rate of 1 makes the change of a parameter its gradient, with as many digits as f32 leaves.
_RATE = 1.0
CHANGE = " change"


def compare_step(opened: Model, feeds: Mapping[str, np.ndarray], source: Path, manifest: Mapping) -> list[Difference]:
    """Rows for `loss` and for each trained parameter. `opened` takes the step and keeps it.

    torch computes in double precision; batch norm is frozen, as the artifact has it. UserError E0402 without torch,
    E0106 for a model that the torch twin does not cover, E0606 without a train program.
    """
    if source.suffix == ".pt2":
        hint = "compile the .onnx export of the module to compare its training step"
        raise UserError("E0106", "a training step is compared for ONNX models only", where=str(source), hint=hint)
    _refuse_other_rules(manifest["train"], source)
    if SEED in opened.states():
        hint = "compile with --dropout off to compare a step"
        raise UserError(
            "E0106", "a training step that drops out at random is not compared", where=str(source), hint=hint
        )
    if opened.adapters():
        hint = "compile with another --update to compare a step"
        raise UserError("E0106", "a training step of low-rank adapters is not compared", where=str(source), hint=hint)
    before = opened.parameters()
    loss = opened.step(feeds, lr=_RATE)
    after = opened.parameters()
    changes = {name: after[name].astype(np.float64) - before[name] for name in opened.trained}
    labels = next(info.name for info in opened.signature("train").inputs if info.bounds is not None)
    inputs = {name: array for name, array in feeds.items() if name != labels}
    expected_loss, expected = _torch_step(source, model_feeds(inputs, manifest), feeds[labels], changes, manifest)
    rows = compare({"loss": np.array(loss)}, {"loss": np.array(expected_loss)})
    for name, change in changes.items():
        rows += compare({name + CHANGE: change}, {name + CHANGE: expected[name] * opened.trained_elements(name)})
    return rows


# What the step of torch below has not; the values are those of a specification that does not ask for it.
_ABSENT = {
    "batch_norm": "frozen",
    "loss": "softmax_cross_entropy", "targets": "indices", "label_smoothing": 0.0, "ignore_index": None,
    "class_weights": [], "optimizer": "sgd", "decay": "all", "groups": [], "accumulate": 1, "clip_norm": None,
    "clip_value": None,
}  # fmt: skip


def _refuse_other_rules(rule: Mapping, source: Path) -> None:
    """UserError E0106 for losses and optimizers that are not compared."""
    for key, value in _ABSENT.items():
        if rule.get(key, value) != value:
            message = f"a training step with {key} = {rule[key]!r} is not compared"
            hint = "compile with softmax_cross_entropy and sgd, without their other options, to compare a step"
            raise UserError("E0106", message, where=str(source), hint=hint)


def _torch_step(
    source: Path,
    inputs: Mapping[str, np.ndarray],
    labels: np.ndarray,
    trained: Collection[str],
    manifest: Mapping,
) -> tuple[float, dict[str, np.ndarray]]:
    """(loss, change of each trained parameter) of one step of torch.optim.SGD, from the model's parameters."""
    if importlib.util.find_spec("torch") is None:
        hint = "pip install torch --index-url https://download.pytorch.org/whl/cpu"
        raise UserError("E0402", "torch is not installed, which takes the step to compare with", hint=hint)
    import onnx  # noqa: PLC0415
    import torch  # noqa: PLC0415

    from edgec.tools.testing.torch_model import OnnxTwin  # noqa: PLC0415  loads torch

    try:
        twin = OnnxTwin(onnx.load(source), logits=True).double()
        parameters = twin.named_onnx_parameters()
        for name, parameter in parameters.items():
            parameter.requires_grad_(name in trained)
        rule = {key: manifest["train"][key] for key in ("momentum", "weight_decay", "nesterov")}
        chosen = {name: parameters[name] for name in trained}
        before = {name: parameter.detach().numpy().copy() for name, parameter in chosen.items()}
        optimizer = torch.optim.SGD(chosen.values(), lr=_RATE, **rule)
        (x,) = inputs.values()
        scores = twin(torch.from_numpy(x.astype(np.float64)))
        loss = torch.nn.functional.cross_entropy(scores.flatten(1), torch.from_numpy(labels.astype(np.int64)))
        loss.backward()
        optimizer.step()
    except (NotImplementedError, KeyError, ValueError, RuntimeError) as error:
        message = f"torch cannot take the step: {type(error).__name__}: {error}"
        hint = "its twin of a model has the ops of convolutional classifiers, and one input"
        raise UserError("E0106", message, where=str(source), hint=hint) from error
    return loss.item(), {name: p.detach().numpy() - before[name] for name, p in chosen.items()}
