"""One small model the whole way: module, passes, TVM kernels, file, C runtime; held to the reference interpreter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgec.backends.targets import find_target
from edgec.backends.tvm.backend import TvmBackend
from edgec.compiler.compile import CompileResult, compile_module
from edgec.compiler.passbase import Options
from edgec.compiler.train import Train
from edgec.graph import interp
from edgec.graph.parse import parse_module
from edgec.runtime import Model, RuntimeFailure, load
from edgec.runtime.layout import write_artifact
from edgec.tools.testing.programs import feeds, initialise

# A strided and a depthwise convolution, a squeeze-and-excite branch, a residual and a head: every kind of group.
MODEL = """
graph infer {
  input %x: f32[2,3,9,9]
  param %stem.weight: f32[8,3,3,3]
  param %stem.bias: f32[8]
  param %dw.weight: f32[8,1,3,3]
  param %squeeze.weight: f32[8,8,1,1]
  param %head.weight: f32[8,5]
  param %head.bias: f32[5]
  %c: f32[2,8,4,4] = conv2d(%x, %stem.weight) {strides=(2,2)}
  %v: f32[8,1,1] = reshape(%stem.bias) {shape=(8,1,1)}
  %b: f32[2,8,4,4] = add(%c, %v)
  %h: f32[2,8,4,4] = hard_swish(%b)
  %d: f32[2,8,4,4] = conv2d(%h, %dw.weight) {pads=(1,1,1,1), groups=8}
  %m: f32[2,8,1,1] = reduce_mean(%d) {axes=(2,3), keepdims=true}
  %q: f32[2,8,1,1] = conv2d(%m, %squeeze.weight)
  %s: f32[2,8,1,1] = hard_sigmoid(%q) {alpha=0.2, beta=0.5}
  %e: f32[2,8,4,4] = mul(%d, %s)
  %r: f32[2,8,4,4] = add(%e, %h)
  %p: f32[2,8] = reduce_mean(%r) {axes=(2,3)}
  %l: f32[2,5] = matmul(%p, %head.weight)
  %logits: f32[2,5] = add(%l, %head.bias)
  output "logits" = %logits
}
"""


@pytest.fixture(scope="module")
def compiled() -> CompileResult:
    module = initialise(parse_module(MODEL))
    result = compile_module(module, [TvmBackend(find_target("x86"))], Options(train=Train(momentum=0.9, batch=4)))
    assert result is not None
    return result


@pytest.fixture
def model(compiled: CompileResult, tmp_path: Path) -> Model:
    path = tmp_path / "m.edge"
    write_artifact(path, compiled.artifact)
    return load(path, threads=2)


def close(got: np.ndarray, wanted: np.ndarray) -> None:
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


def test_steps_follow_the_reference(compiled: CompileResult, model: Model) -> None:
    programs, state = compiled.module.programs, {}
    for step in range(4):
        arrays = feeds(programs["train"], seed=step)
        wanted = interp.run(programs["train"], {**arrays, **state})
        lr = float(arrays.pop("lr"))
        close(np.float32(model.step(arrays, lr=lr)), wanted.outputs["loss"])
        state |= wanted.updates
        now = {**model.parameters(), **model.states()}
        for name, array in wanted.updates.items():
            close(now[name], array)
    known = {name: array for name, array in state.items() if name in programs["infer"].leaves}
    arrays = feeds(programs["infer"])
    close(model.run(arrays)["logits"], interp.run(programs["infer"], {**arrays, **known}).outputs["logits"])
    arrays = feeds(programs["eval"])
    loss, _ = model.eval_step(arrays)
    close(np.float32(loss), interp.run(programs["eval"], {**arrays, **known}).outputs["loss"])


def test_the_guard_leaves_everything_untouched(compiled: CompileResult, model: Model) -> None:
    before = {**model.parameters(), **model.states()}
    arrays = feeds(compiled.module.programs["train"])
    arrays["x"][0, 0, 0, 0] = np.inf
    lr = float(arrays.pop("lr"))
    with pytest.raises(RuntimeFailure) as caught:
        model.step(arrays, lr=lr)
    assert caught.value.code == "E0605"
    for name, array in {**model.parameters(), **model.states()}.items():
        np.testing.assert_array_equal(array, before[name])


def test_labels_out_of_range_are_refused(compiled: CompileResult, model: Model) -> None:
    arrays = feeds(compiled.module.programs["train"])
    arrays["labels"][1] = 5
    lr = float(arrays.pop("lr"))
    with pytest.raises(RuntimeFailure) as caught:
        model.step(arrays, lr=lr)
    assert caught.value.code == "E0604"
