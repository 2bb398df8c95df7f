"""train_batch_norm: statistics of the batch in `train`, running ones that follow, and what `infer` sees of them."""

from collections.abc import Iterable

import numpy as np
import pytest
import torch

from edgec.compiler.passbase import Options
from edgec.compiler.passes.train_batch_norm import train_batch_norm
from edgec.compiler.pipeline import transform_module
from edgec.compiler.train import Train
from edgec.graph.errors import UserError
from edgec.graph.interp import run
from edgec.graph.ir import Graph, Module, Role
from edgec.graph.ops.batch_norm_train import BatchNormTrain
from edgec.graph.ops.neg import Neg
from edgec.graph.parse import parse_module
from edgec.tools.testing.pass_check import check_becomes
from edgec.tools.testing.programs import initialise
from edgec.tools.testing.train_cases import separable_net
from edgec.tools.testing.twins import Twins

torch.set_num_threads(1)
STATISTICS = (".mean", ".variance")
LEAVES = """
  input %x: f32[4,2]
  param %gamma: f32[2]
  param %beta: f32[2]
  param %mean: f32[2]
  param %var: f32[2]
"""
EVAL = f"""
graph infer {{
{LEAVES}
  constant %epsilon: f32[] = [0.5]
  constant %one: f32[] = [1.0]
  constant %minus: f32[] = [-1.0]
  %shifted: f32[2] = add(%var, %epsilon)
  %deviation: f32[2] = sqrt(%shifted)
  %inverse: f32[2] = div(%one, %deviation)
  %scale: f32[2] = mul(%gamma, %inverse)
  %scaled: f32[4,2] = mul(%x, %scale)
  %offset: f32[2] = mul(%mean, %minus)
  %shift: f32[2] = mul(%offset, %scale)
  %total: f32[2] = add(%shift, %beta)
  %y: f32[4,2] = add(%scaled, %total)
  output "y" = %y
}}
"""


def program(name: str) -> str:
    norm = "%y: f32[4,2] = batch_norm(%x, %gamma, %beta, %mean, %var) {epsilon=0.5, momentum=0.25}"
    return f'graph {name} {{\n{LEAVES}\n{norm}\noutput "y" = %y\n}}'


def test_train_takes_the_statistics_of_the_batch_and_moves_the_running_ones() -> None:
    """Four values per channel: the variance counts 4/3 of its quarter."""
    train = f"""
    graph train {{
    {LEAVES}
      constant %kept: f32[] = [0.75]
      constant %part: f32[] = [0.25]
      constant %kept2: f32[] = [0.75]
      constant %unbiased: f32[] = [0.33333334]
      %y: f32[4,2], %m: f32[2], %v: f32[2] = batch_norm_train(%x, %gamma, %beta) {{epsilon=0.5}}
      %old.mean: f32[2] = mul(%mean, %kept)
      %of.batch: f32[2] = mul(%m, %part)
      %mean.new: f32[2] = add(%old.mean, %of.batch)
      %old.var: f32[2] = mul(%var, %kept2)
      %of.batch2: f32[2] = mul(%v, %unbiased)
      %var.new: f32[2] = add(%old.var, %of.batch2)
      output "y" = %y
      update %mean = %mean.new
      update %var = %var.new
    }}
    """
    options = Options(train=Train(batch_norm="train"))
    changed = EVAL + train
    for leaf in ("mean", "var"):
        changed = changed.replace(f"param %{leaf}: f32[2]", f"param %{leaf}: f32[2] trainable")
    check_becomes(train_batch_norm, program("infer") + program("train"), changed, options)


def test_one_value_per_channel_has_no_statistics() -> None:
    text = (program("infer") + program("train")).replace("[4,2]", "[1,2]").replace("0.25}", '0.25} @"bn7"')
    with pytest.raises(UserError, match="more than one value") as caught:
        train_batch_norm(parse_module(text), Options(train=Train(batch_norm="train")))
    assert caught.value.code == "E0302" and "bn7" in caught.value.where


def test_without_being_asked_nothing_happens() -> None:
    assert not train_batch_norm(parse_module(program("infer") + program("train")), Options(train=Train()))
    assert not train_batch_norm(parse_module(program("infer")), Options())


def trained_like_torch(
    twins: Twins, module: Module, batches: Iterable[dict[str, np.ndarray]]
) -> tuple[dict[str, torch.Tensor], dict[str, np.ndarray]]:
    """Compiles `module` for training and takes steps, as torch does on the rows that count: losses, parameters and
    running statistics are the same. Returns torch's and ours.
    """
    transform_module(module, Options(train=Train(batch=4, batch_norm="train", momentum=0.9)))
    weights = {name: w.requires_grad_(not name.endswith(STATISTICS)) for name, w in twins.weights().items()}
    optimizer = torch.optim.SGD([w for w in weights.values() if w.requires_grad], lr=0.125, momentum=0.9)
    held: dict[str, np.ndarray] = {}
    for feeds in batches:
        results = run(module.programs["train"], {**feeds, "lr": np.float32(0.125), **held})
        held = results.updates
        optimizer.zero_grad()
        rows = feeds.get("rows", 4)
        scores = twins.forward_train(weights, torch.tensor(feeds["x"][:rows]))
        loss = torch.nn.functional.cross_entropy(scores, torch.tensor(feeds["labels"][:rows]))
        loss.backward()
        optimizer.step()
        assert abs(loss.item() - results.outputs["loss"]) < 1e-9
    for name, weight in weights.items():
        np.testing.assert_allclose(held[name], weight.detach().numpy(), rtol=0, atol=1e-9, err_msg=name)
    return weights, held


def test_five_steps_are_those_of_torch_in_training_mode() -> None:
    """Losses, parameters and running statistics; then `infer` and `eval` normalise by what the statistics became."""
    twins = separable_net()
    module = twins.module.clone()
    batches = (dict(zip(("x", "labels"), twins.batch(4, seed=step), strict=True)) for step in range(5))
    weights, held = trained_like_torch(twins, module, batches)
    for name in weights:
        if name.endswith(STATISTICS):
            began = module.programs["train"].leaves[name].data
            assert np.abs(held[name] - began).max() > 1e-2, f"{name} stayed where it was"
    x, labels = twins.batch(4, seed=9)
    with torch.no_grad():
        expected = twins.forward(weights, torch.tensor(x)).numpy()
    evaluated = run(module.programs["eval"], {"x": x, "labels": labels, **leaves_of(module.programs["eval"], held)})
    np.testing.assert_allclose(evaluated.outputs["y"], expected, rtol=0, atol=1e-9)
    alone = run(module.programs["infer"], {"x": x[:1], **leaves_of(module.programs["infer"], held)}).outputs["y"]
    np.testing.assert_allclose(alone, expected[:1], rtol=0, atol=1e-9)


def first_step(module: object) -> dict[str, np.ndarray]:
    x, labels = separable_net().batch(4)
    return run(module.programs["train"], {"x": x, "labels": labels, "lr": np.float32(1)}).updates


def test_breaking_its_vjp_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the comparison of five steps above, which holds them to 1e-9."""
    original, modules = BatchNormTrain.vjp, []
    for _ in range(2):
        modules.append(separable_net().module)
        transform_module(modules[-1], Options(train=Train(batch=4, batch_norm="train")))
        broken = lambda op, build, x, y, dy: original(op, build, x, y, (build.emit(Neg(), dy[0]), *dy[1:]))  # noqa: E731
        monkeypatch.setattr(BatchNormTrain, "vjp", broken)
    right, wrong = map(first_step, modules)
    assert max(np.abs(right[name] - wrong[name]).max() for name in right) > 1e-3


def leaves_of(graph: Graph, held: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {leaf.name: held[leaf.name] for leaf in graph.by_role(Role.PARAM) if leaf.name in held}


def test_a_norm_that_is_read_twice_moves_its_statistics_twice() -> None:
    text = (program("infer") + program("train")).replace(
        'output "y"',
        "%z: f32[4,2] = batch_norm(%y, %gamma, %beta, %mean, %var) {epsilon=0.5, momentum=0.25}\noutput "
        '"z" = %z\noutput "y"',
    )
    module = parse_module(text)
    train_batch_norm(module, Options(train=Train(batch_norm="train")))
    graph = module.programs["train"]
    x = np.random.default_rng(0).standard_normal((4, 2)).astype(np.float32) + 3
    gamma, beta = np.array([2.0, 0.5], np.float32), np.array([0.25, -1.0], np.float32)
    feeds = {"x": x, "gamma": gamma, "beta": beta, "mean": np.zeros(2, np.float32), "var": np.ones(2, np.float32)}
    norm = torch.nn.BatchNorm1d(2, eps=0.5, momentum=0.25)
    norm.weight.data, norm.bias.data = torch.tensor(gamma), torch.tensor(beta)
    norm(norm(torch.tensor(x)))
    updates = run(graph, feeds).updates
    np.testing.assert_allclose(updates["mean"], norm.running_mean.numpy(), rtol=1e-5)
    np.testing.assert_allclose(updates["var"], norm.running_var.numpy(), rtol=1e-5)


def test_rows_that_do_not_count_are_in_no_statistics() -> None:
    """Steps of short batches, filled up with large numbers, are torch's steps of the short batches."""
    twins = separable_net()
    batches = []
    for step, rows in enumerate((3, 4, 2)):
        x, labels = twins.batch(4, seed=step)
        x[rows:] = 1e3
        batches.append({"x": x, "labels": labels, "rows": np.int32(rows)})
    trained_like_torch(twins, twins.module.clone(), batches)


def test_images_that_are_mixed_before_a_norm_count_as_a_whole_batch() -> None:
    """Of a reshaped batch no row of the norm is an image's alone: no program of it takes `rows`."""
    text = """
    graph infer {
      input %x: f32[4,6]
      param %gamma: f32[2]
      param %beta: f32[2]
      param %mean: f32[2]
      param %var: f32[2]
      param %w: f32[6,3]
      %tokens: f32[12,2] = reshape(%x) {shape=(12,2)}
      %n: f32[12,2] = batch_norm(%tokens, %gamma, %beta, %mean, %var)
      %flat: f32[4,6] = reshape(%n) {shape=(4,6)}
      %y: f32[4,3] = matmul(%flat, %w)
      output "y" = %y
    }
    """
    module = initialise(parse_module(text))
    transform_module(module, Options(train=Train(batch_norm="train")))
    assert "rows" not in module.programs["train"].leaves and "rows" in module.programs["eval"].leaves
