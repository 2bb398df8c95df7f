"""Options of training that meet: what one changes must be what the other expects."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from edgec.compiler.budget import counted_bytes
from edgec.compiler.compile import CompileResult, compile_module
from edgec.compiler.passbase import Options
from edgec.compiler.pipeline import transform_module
from edgec.compiler.train import Train
from edgec.graph.interp import run
from edgec.graph.ir import Module
from edgec.graph.ops.dropout import Dropout
from edgec.graph.parse import parse_graph
from edgec.tools.testing.plan_interp import PlanInterpreter
from edgec.tools.testing.programs import feeds, initialise
from edgec.tools.testing.reference_backend import ReferenceBackend
from edgec.tools.testing.train_cases import separable_net, small_cnn

torch.set_num_threads(1)
STATISTICS = (".mean", ".variance")
LR = np.float32(0.125)


def chain(dropout: bool) -> Module:
    """Convolutions with norms' scales, hard-swish and perhaps dropout, of equal cost; two images."""
    lines = ["graph infer {", "input %x: f32[2,4,12,12]", "param %fc: f32[576,3]"]
    before = "x"
    for i in range(8):
        lines += [f"param %w{i}: f32[4,4,3,3]", f"%c{i}: f32[2,4,12,12] = conv2d(%{before}, %w{i}) {{pads=(1,1,1,1)}}"]
        lines += [f"%h{i}: f32[2,4,12,12] = hard_swish(%c{i})"]
        before = f"h{i}"
        if dropout:
            lines += [f"%d{i}: f32[2,4,12,12] = dropout(%h{i}) {{rate=0.25}}"]
            before = f"d{i}"
    lines += [f"%flat: f32[2,576] = reshape(%{before}) {{shape=(2,576)}}", "%y: f32[2,3] = matmul(%flat, %fc)"]
    module = initialise(Module({"infer": parse_graph("\n".join([*lines, 'output "y" = %y', "}"]))}))
    for leaf in module.programs["infer"].leaves.values():
        if leaf.data is not None:
            leaf.data *= np.float32(0.3)
    return module


def compiled(module: Module, train: Train) -> CompileResult:
    """Without tilings, so that a budget is met by computing again."""
    options = Options(train=train, skip=frozenset({"tile_chains"}))
    return compile_module(module, [ReferenceBackend()], options)


def free_and_tight(dropout: bool, train: Train) -> tuple[CompileResult, CompileResult]:
    """Without a budget, and with one that takes three tenths of the arena away, of lossy forms a fiftieth."""
    free = compiled(chain(dropout), train)
    part = 0.3 if train.saved_activations == "exact" else 0.02
    budget = counted_bytes(free.schedules[0]) - int(free.report.programs["train"].arena_bytes * part)
    tight = compiled(chain(dropout), dataclasses.replace(train, memory_budget=budget))
    assert counted_bytes(tight.schedules[0]) <= budget and tight.schedules[0].programs["train"].again
    return free, tight


def rounds(result: CompileResult, steps: int) -> PlanInterpreter:
    """`train`, and `apply` where it is due."""
    machine = PlanInterpreter(result.artifact, result.images[0])
    programs = result.module.programs
    for step in range(steps):
        fed = feeds(programs["train"], seed=step)
        fed = {name: array for name, array in fed.items() if "/" not in name}
        outputs = machine.run("train", fed | {"lr": LR} if "lr" in programs["train"].leaves else fed)
        if outputs.get("due"):
            machine.run("apply", {"lr": LR})
    return machine


def trained(result: CompileResult, machine: PlanInterpreter) -> dict[str, np.ndarray]:
    names = {leaf.name for program in result.module.programs.values() for leaf in program.updates}
    return {name: machine.tensor(name) for name in sorted(names)}


@pytest.mark.parametrize("form", ["exact", "f16"])
def test_accumulation_under_a_budget_has_the_same_bits(form: str) -> None:
    """With a lossy form the copies are exact, so that bits may differ: gradients stay close."""
    free, tight = free_and_tight(False, Train(batch=2, momentum=0.9, accumulate=2, saved_activations=form))
    wanted, got = (trained(result, rounds(result, 4)) for result in (free, tight))
    for name, array in wanted.items():
        if form == "exact":
            np.testing.assert_array_equal(got[name], array, err_msg=name)
        else:
            off = np.linalg.norm(got[name] - array) / max(np.linalg.norm(array), 1e-3)
            assert off < 2e-3, (name, off)


def test_what_is_dropped_again_is_what_was_dropped() -> None:
    """Dropouts are among what the budget has computed again, and the counter moves on only after all of them."""
    free, tight = free_and_tight(True, Train(batch=2, momentum=0.9))
    again = {type(node.op) for node in tight.schedules[0].programs["train"].again}
    assert Dropout in again
    wanted, got = (trained(result, rounds(result, 3)) for result in (free, tight))
    for name, array in wanted.items():
        np.testing.assert_array_equal(got[name], array, err_msg=name)


def test_accumulation_over_batches_with_statistics_of_their_own() -> None:
    """torch: each batch normalises by itself, gradients add up, statistics move twice, one step; the last is short."""
    twins = separable_net()
    module = twins.module.clone()
    transform_module(module, Options(train=Train(batch=4, batch_norm="train", momentum=0.9, accumulate=2)))
    weights = {name: w.requires_grad_(not name.endswith(STATISTICS)) for name, w in twins.weights().items()}
    optimizer = torch.optim.SGD([w for w in weights.values() if w.requires_grad], lr=0.125, momentum=0.9)
    held: dict[str, np.ndarray] = {}

    def ours(name: str, fed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        program = module.programs[name]
        results = run(program, fed | {key: array for key, array in held.items() if key in program.leaves})
        held.update(results.updates)
        return results.outputs

    for round_ in range(2):
        optimizer.zero_grad()
        for part, rows in enumerate((4, 3)):
            x, labels = twins.batch(4, seed=2 * round_ + part)
            scores = twins.forward_train(weights, torch.tensor(x[:rows]))
            loss = torch.nn.functional.cross_entropy(scores, torch.tensor(labels[:rows]), reduction="sum")
            (loss / 7).backward()
            outputs = ours("train", {"x": x, "labels": labels, "rows": np.int32(rows)})
            assert abs(outputs["loss"] - loss.item() / rows) < 1e-9 and bool(outputs["due"]) == bool(part)
        optimizer.step()
        ours("apply", {"lr": LR})
    for name, weight in weights.items():
        np.testing.assert_allclose(held[name], weight.detach().numpy(), rtol=0, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("clip", [{"clip_norm": 0.5}, {"clip_value": 0.01}], ids=str)
def test_clipping_sees_the_gradients_of_valid_rows(clip: dict[str, float]) -> None:
    """Two of four images count; the others are large, and would be most of the norm."""
    twins = small_cnn()
    module = twins.module.clone()
    transform_module(module, Options(train=Train(batch=4, **clip)))
    graph = module.programs["train"]
    x, labels = twins.batch(4)
    x[2:] *= 1e3
    weights = {name: w.requires_grad_() for name, w in twins.weights().items()}
    torch.nn.functional.cross_entropy(twins.forward(weights, torch.tensor(x[:2])), torch.tensor(labels[:2])).backward()
    if "clip_norm" in clip:
        norm = torch.nn.utils.clip_grad_norm_(list(weights.values()), clip["clip_norm"])
        assert norm > 2 * clip["clip_norm"], "nothing was clipped"
    else:
        torch.nn.utils.clip_grad_value_(list(weights.values()), clip["clip_value"])
    updates = run(graph, {"x": x, "labels": labels, "rows": np.int32(2), "lr": np.float32(1)}).updates
    for name, weight in weights.items():
        expected = weight.detach().numpy() - weight.grad.numpy()
        np.testing.assert_allclose(updates[name], expected, rtol=0, atol=1e-6, err_msg=name)
