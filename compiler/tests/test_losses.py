"""Every loss with every option, in float64, against torch: value and gradients, of full and of padded batches."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from edgec.compiler.adapt import NewHead
from edgec.compiler.passbase import Options
from edgec.compiler.pipeline import transform_module
from edgec.compiler.train import Train
from edgec.graph.errors import UserError
from edgec.graph.interp import run
from edgec.graph.ir import Module
from edgec.graph.ops.bce_logits import BceLogits
from edgec.graph.ops.mul import Mul
from edgec.graph.parse import parse_module
from edgec.tools.testing.programs import initialise

torch.set_num_threads(1)
BATCH, CLASSES = 4, 5

DENSE = """
graph infer {
  input %x: f64[1,6]
  param %w: f64[6,5]
  param %b: f64[5]
  %m: f64[1,5] = matmul(%x, %w)
  %y: f64[1,5] = add(%m, %b)
  TAIL
}
"""
MAP = """
graph infer {
  input %x: f64[1,6,2,3]
  param %w: f64[5,6,1,1]
  param %b: f64[5]
  %m: f64[1,5,2,3] = conv2d(%x, %w)
  %c: f64[5,1,1] = reshape(%b) {shape=(5,1,1)}
  %y: f64[1,5,2,3] = add(%m, %c)
  TAIL
}
"""
PLAIN = 'output "y" = %y'
LAST = '%t: f64[1,2,3,5] = transpose(%y) {perm=(0,2,3,1)}\n output "y" = %t'


def dense(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return x @ w + b


def convolution(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return F.conv2d(x, w, b)


@dataclass(frozen=True)
class Case:
    """A specification, its labels [BATCH,...], and what torch makes of scores and labels."""

    options: dict
    labels: np.ndarray
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    text: str = DENSE
    tail: str = PLAIN
    forward: Callable[..., torch.Tensor] = field(default=dense)

    def module(self) -> Module:
        return initialise(parse_module(self.text.replace("TAIL", self.tail)))


def _labels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, CLASSES, (BATCH, *shape))


def _values(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((BATCH, *shape))


def _ignoring(labels: np.ndarray, index: int) -> np.ndarray:
    changed = labels.copy()
    changed.reshape(-1)[::3] = index
    return changed


WEIGHTS = (0.5, 1.0, 2.0, 0.0, 3.0)
TORCH_WEIGHTS = torch.tensor(WEIGHTS, dtype=torch.float64)
SOFT = np.random.default_rng(1).dirichlet(np.ones(CLASSES), BATCH)
SOFT_MAP = np.random.default_rng(1).dirichlet(np.ones(CLASSES), (BATCH, 2, 3)).transpose(0, 3, 1, 2).copy()
SOFTMAX = '%p: f64[1,5] = softmax(%y) {axis=1}\n output "p" = %p'
LOG_SOFTMAX = """
  %top: f64[1,1] = reduce_max(%y) {axes=(1), keepdims=true}
  %s: f64[1,5] = sub(%y, %top)
  %e: f64[1,5] = exp(%s)
  %n: f64[1,1] = reduce_sum(%e) {axes=(1), keepdims=true}
  %l: f64[1,1] = log(%n)
  %p: f64[1,5] = sub(%s, %l)
  output "p" = %p
"""
SIGMOID = '%p: f64[1,5] = sigmoid(%y)\n output "p" = %p'
MAPS = {"text": MAP, "forward": convolution}

CASES = {
    "plain": Case({}, _labels(), F.cross_entropy),
    "softmax": Case({}, _labels(), F.cross_entropy, tail=SOFTMAX),
    "log_softmax": Case({}, _labels(), F.cross_entropy, tail=LOG_SOFTMAX),
    "smoothing": Case({"label_smoothing": 0.2}, _labels(), lambda y, t: F.cross_entropy(y, t, label_smoothing=0.2)),
    "weights": Case({"class_weights": WEIGHTS}, _labels(), lambda y, t: F.cross_entropy(y, t, TORCH_WEIGHTS)),
    "ignored": Case({"ignore_index": -100}, _ignoring(_labels(), -100), F.cross_entropy),
    "ignored class": Case({"ignore_index": 2}, _labels(), lambda y, t: F.cross_entropy(y, t, ignore_index=2)),
    "all": Case(
        {"ignore_index": -1, "class_weights": WEIGHTS, "label_smoothing": 0.3},
        _ignoring(_labels(), -1),
        lambda y, t: F.cross_entropy(y, t, TORCH_WEIGHTS, ignore_index=-1, label_smoothing=0.3),
    ),
    "soft": Case({"targets": "probabilities"}, SOFT, F.cross_entropy),
    "soft all": Case(
        {"targets": "probabilities", "class_weights": WEIGHTS, "label_smoothing": 0.3},
        SOFT,
        lambda y, t: F.cross_entropy(y, t, TORCH_WEIGHTS, label_smoothing=0.3),
    ),
    "map": Case({}, _labels(2, 3), F.cross_entropy, **MAPS),
    "map all": Case(
        {"ignore_index": 255, "class_weights": WEIGHTS, "label_smoothing": 0.1},
        _ignoring(_labels(2, 3), 255),
        lambda y, t: F.cross_entropy(y, t, TORCH_WEIGHTS, ignore_index=255, label_smoothing=0.1),
        **MAPS,
    ),
    "map last": Case({"class_axis": -1}, _labels(2, 3), F.cross_entropy, tail=LAST, **MAPS),
    "map soft": Case({"targets": "probabilities"}, SOFT_MAP, F.cross_entropy, **MAPS),
    "bce": Case({"loss": "bce_logits"}, SOFT, F.binary_cross_entropy_with_logits),
    "bce sigmoid": Case({"loss": "bce_logits"}, SOFT, F.binary_cross_entropy_with_logits, tail=SIGMOID),
    "mse": Case({"loss": "mse"}, _values(5), F.mse_loss),
    "mse map": Case({"loss": "mse"}, _values(5, 2, 3), F.mse_loss, **MAPS),
    "l1": Case({"loss": "l1"}, _values(5), F.l1_loss),
    "huber": Case({"loss": "huber"}, _values(5), F.huber_loss),
    "huber delta": Case({"loss": "huber", "huber_delta": 0.3}, _values(5), lambda y, t: F.huber_loss(y, t, delta=0.3)),
}


def ours(case: Case, feeds: dict, batch: int = BATCH) -> tuple[float, dict[str, np.ndarray]]:
    """Loss and gradients: with a learning rate of 1, the step is the gradient."""
    module = case.module()
    transform_module(module, Options(train=Train(batch=batch, **case.options)))
    graph = module.programs["train"]
    results = run(graph, feeds | {"lr": np.float32(1)})
    evaluated = run(module.programs["eval"], feeds)
    np.testing.assert_array_equal(results.outputs["loss"], evaluated.outputs["loss"])
    return float(results.outputs["loss"]), {n: graph.leaves[n].data - new for n, new in results.updates.items()}


def torchs(case: Case, x: np.ndarray, labels: np.ndarray) -> tuple[float, dict[str, np.ndarray]]:
    leaves = case.module().programs["infer"].leaves
    w, b = (torch.tensor(leaves[name].data, requires_grad=True) for name in ("w", "b"))
    loss = case.loss(case.forward(torch.tensor(x), w, b), torch.tensor(labels))
    loss.backward()
    return loss.item(), {"w": w.grad.numpy(), "b": b.grad.numpy()}


def images(case: Case) -> np.ndarray:
    return _values(*case.module().programs["infer"].leaves["x"].type.shape[1:], seed=9)


def agree(got: tuple[float, dict], expected: tuple[float, dict]) -> None:
    assert abs(got[0] - expected[0]) < 1e-12
    for name, gradient in expected[1].items():
        np.testing.assert_allclose(got[1][name], gradient, rtol=0, atol=1e-12)
        assert np.abs(gradient).max() > 1e-3


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_loss_and_gradients_are_torchs(case: Case) -> None:
    x = images(case)
    agree(ours(case, {"x": x, "labels": case.labels}), torchs(case, x, case.labels))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_padded_batch_is_the_smaller_one(case: Case) -> None:
    x, rows = images(case), 3
    expected = torchs(case, x[:rows], case.labels[:rows])
    padded, labels = x.copy(), case.labels.copy()
    padded[rows:], labels[rows:] = 1e3, case.labels[0]
    agree(ours(case, {"x": padded, "labels": labels, "rows": np.int32(rows)}), expected)


@pytest.mark.parametrize("name", ["plain", "smoothing", "map", "mse", "bce", "soft"])
def test_a_batch_of_one_has_no_rows_to_leave_out(name: str) -> None:
    case, x = CASES[name], images(CASES[name])
    picked = slice(1, 2)
    agree(ours(case, {"x": x[picked], "labels": case.labels[picked]}, 1), torchs(case, x[picked], case.labels[picked]))


def test_smoothing_spreads_over_live_classes_alone() -> None:
    module = initialise(parse_module(DENSE.replace("TAIL", PLAIN).replace("f64", "f32")))
    options = Options(new_head=NewHead(6), train=Train(batch=BATCH, label_smoothing=0.3))
    transform_module(module, options)
    x, labels = _values(6).astype(np.float32), np.array([0, 2, 1, 2])
    feeds = {"x": x, "labels": labels, "classes": np.int32(3)}
    evaluated = run(module.programs["eval"], feeds, dtype=np.float64).outputs
    scores = torch.tensor(evaluated["y"][:, :3])
    expected = F.cross_entropy(scores, torch.tensor(labels), label_smoothing=0.3).item()
    np.testing.assert_allclose(evaluated["loss"], expected, rtol=1e-6)


TWO = """
graph infer {
  input %x: f64[1,6]
  param %w: f64[6,5]
  %m: f64[1,5] = matmul(%x, %w)
  %h: f64[1,5] = sigmoid(%m)
  %y: f64[1] = reduce_sum(%h) {axes=(1)}
  output "y" = %y
}
"""


def test_errors_of_several_named_values_add_up() -> None:
    """Of an output, and of a value inside."""
    module = initialise(parse_module(TWO))
    transform_module(module, Options(train=Train(batch=BATCH, loss="sum_mse:y,h")))
    graph = module.programs["train"]
    x, y, h = _values(6), _values(), _values(5, seed=3)
    feeds = {"x": x, "labels.y": y, "labels.h": h, "lr": np.float32(1), "rows": np.int32(3)}
    results = run(graph, feeds)
    w = torch.tensor(graph.leaves["w"].data, requires_grad=True)
    hidden = torch.sigmoid(torch.tensor(x[:3]) @ w)
    loss = F.mse_loss(hidden.sum(1), torch.tensor(y[:3])) + F.mse_loss(hidden, torch.tensor(h[:3]))
    loss.backward()
    np.testing.assert_allclose(results.outputs["loss"], loss.item(), rtol=1e-12)
    np.testing.assert_allclose(graph.leaves["w"].data - results.updates["w"], w.grad.numpy(), rtol=1e-10)
    assert list(module.programs["eval"].outputs) == ["y", "loss"]


OWN = """
graph infer {
  input %x: f64[3,6]
  input %target: f64[3]
  param %w: f64[6]
  %m: f64[3,6] = mul(%x, %w)
  %s: f64[3] = reduce_sum(%m) {axes=(1)}
  %d: f64[3] = sub(%s, %target)
  %q: f64[3] = mul(%d, %d)
  %mean: f64[1] = reduce_mean(%q) {axes=(0), keepdims=true}
  output "scores" = %s
  output "NAME" = %mean
}
"""


@pytest.mark.parametrize("name", ["error", "loss"])
def test_a_loss_of_the_models_own(name: str) -> None:
    module = initialise(parse_module(OWN.replace("NAME", name)))
    transform_module(module, Options(train=Train(loss=f"output:{name}")))
    graph = module.programs["train"]
    assert [leaf.name for leaf in graph.leaves.values() if leaf.role.value in ("input", "scalar")] == [
        "x", "target", "lr",
    ]  # fmt: skip
    x, target = _values(6)[:3], _values()[:3]
    results = run(graph, {"x": x, "target": target, "lr": np.float32(1)})
    w = torch.tensor(graph.leaves["w"].data, requires_grad=True)
    loss = F.mse_loss((torch.tensor(x) * w).sum(1), torch.tensor(target))
    loss.backward()
    np.testing.assert_allclose(results.outputs["loss"], loss.item(), rtol=1e-12)
    np.testing.assert_allclose(graph.leaves["w"].data - results.updates["w"], w.grad.numpy(), rtol=1e-12)


def test_a_broken_gradient_of_bce_logits_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = BceLogits.vjp

    def broken(self: BceLogits, build: object, *rest: tuple) -> tuple:
        return build.emit(Mul(), whole(self, build, *rest)[0], build.constant(np.array(1.01))), None

    monkeypatch.setattr(BceLogits, "vjp", broken)
    with pytest.raises(AssertionError):
        test_loss_and_gradients_are_torchs(CASES["bce"])


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (DENSE, {"class_weights": (1.0, 2.0)}, "2 class weights are given, the model has 5 classes"),
        (MAP, {"class_axis": 4}, "one score for each class"),
        (DENSE, {"loss": "output:z"}, "no value called `z`"),
        (DENSE, {"loss": "output:y"}, "a loss is one float"),
        (DENSE, {"loss": "output:m"}, "no value called `m`"),
        (DENSE, {"loss": "sum_mse:y,z"}, "no value called `z`"),
        (DENSE.replace("%x", "%rows"), {}, "`rows` is the name of the number of valid rows"),
        (DENSE.replace("%x", "%labels.y"), {"loss": "sum_mse:y"}, "`labels.y` is the name of the label input"),
    ],
)
def test_losses_that_do_not_fit_the_model_are_refused(text: str, options: dict, message: str) -> None:
    module = initialise(parse_module(text.replace("TAIL", PLAIN)))
    with pytest.raises(UserError, match=message) as caught:
        transform_module(module, Options(train=Train(batch=BATCH, **options)))
    assert caught.value.code == "E0302"
