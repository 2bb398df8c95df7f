"""Artifacts through `edgec-run`: here, and on aarch64 under qemu."""

import json

import numpy as np
import onnx
import pytest

import edgec
from edgec.graph.errors import UserError
from edgec.tools import api
from edgec.tools.cli import main
from edgec.tools.device_run import choose_variant, run_on_device
from edgec.tools.testing.models import one_node_onnx, small_cnn_onnx

BATCH = 2


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    path = tmp_path_factory.mktemp("device") / "cnn.edge"
    train = edgec.Train(batch=BATCH, momentum=0.9)
    api.build(api.Request(small_cnn_onnx(), api.parse_targets("x86,rpi4"), batch=BATCH, train=train), path)
    return path


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).standard_normal((BATCH, 1, 28, 28)).astype(np.float32)


def test_edgec_run_gives_what_the_binding_gives_to_the_bit(artifact, images):
    done = run_on_device("local", artifact, "infer", {"x": images})
    expected = edgec.load(artifact, threads=1).run({"x": images})
    assert done.outputs.keys() == expected.keys() and done.losses is None
    np.testing.assert_array_equal(done.outputs["logits"], expected["logits"])
    assert sum(call["macs"] for call in done.profile["calls"]) > 0


def test_an_output_comes_back_as_long_as_it_is(tmp_path):
    """Room for three rows, and a count that says how many there are."""
    feeds = {"x": np.arange(6, dtype=np.float32).reshape(3, 2), "chosen": np.array([True, False, True])}
    path = tmp_path / "rows.edge"
    api.build(api.Request(one_node_onnx("Compress", feeds, axis=0), api.parse_targets("x86")), path)
    outputs = run_on_device("local", path, "infer", feeds).outputs
    assert outputs.keys() == {"y0"}
    np.testing.assert_array_equal(outputs["y0"], feeds["x"][feeds["chosen"]])


def test_aarch64_under_qemu_agrees_with_this_machine(artifact, images):
    done = run_on_device("qemu", artifact, "infer", {"x": images})
    assert done.where == "qemu-aarch64-static -cpu cortex-a72"
    expected = edgec.load(artifact, threads=1).run({"x": images})["logits"]
    np.testing.assert_allclose(done.outputs["logits"], expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("device", ["local", "qemu"])
def test_steps_train_and_a_checkpoint_carries_on(device, artifact, images, tmp_path):
    """Four steps are two, a checkpoint, and two more, to the bit; and they are those of the binding."""
    feeds = {"x": images, "labels": np.arange(BATCH, dtype=np.int64), "lr": np.array(0.05, np.float32)}
    whole = run_on_device(device, artifact, "train", feeds, steps=4).losses
    saved = tmp_path / "c.edgeckpt"
    first = run_on_device(device, artifact, "train", feeds, steps=2, save_checkpoint=saved).losses
    second = run_on_device(device, artifact, "train", feeds, steps=2, load_checkpoint=saved).losses
    np.testing.assert_array_equal(whole, np.concatenate([first, second]))
    model = edgec.load(artifact, threads=1)
    here = [model.step({"x": images, "labels": feeds["labels"]}, lr=0.05) for _ in range(4)]
    np.testing.assert_allclose(whole, here, rtol=1e-4 if device == "qemu" else 0)
    assert whole[-1] < whole[0]


def test_a_failure_on_the_device_keeps_its_code(artifact, images):
    for program, feeds, code in [
        ("nothing", {"x": images}, "E0606"),
        ("infer", {"y": images}, "E0601"),
        ("infer", {"x": images[:1]}, "E0603"),
    ]:
        with pytest.raises(UserError) as caught:
            run_on_device("local", artifact, program, feeds)
        assert caught.value.code == code


def test_the_variant_fits_the_device(artifact, tmp_path):
    assert choose_variant(artifact, "local", None).name == "x86"
    assert choose_variant(artifact, "qemu", None).name == "rpi4"
    assert choose_variant(artifact, "ssh://board", "x86").name == "x86"
    with pytest.raises(UserError) as caught:
        choose_variant(artifact, "qemu", "rpi5")
    assert caught.value.code == "E0504" and "x86, rpi4" in caught.value.hint


def test_run_takes_a_device(artifact, images, tmp_path, capsys):
    np.savez(tmp_path / "in.npz", x=images)
    words = ["run", str(artifact), "--input", str(tmp_path / "in.npz"), "-o", str(tmp_path / "out.npz")]
    with pytest.raises(SystemExit) as caught:
        main([*words, "--device", "qemu"])
    assert caught.value.code == 0 and "cortex-a72" in capsys.readouterr().err
    assert np.load(tmp_path / "out.npz")["logits"].shape == (BATCH, 10)


def test_verify_and_profile_take_a_device(tmp_path, capsys):
    onnx.save(small_cnn_onnx(), tmp_path / "cnn.onnx")
    request = api.Request(tmp_path / "cnn.onnx", api.parse_targets("rpi4"), batch=BATCH)
    api.build(request, tmp_path / "cnn.edge")
    with pytest.raises(SystemExit) as caught:
        main(["verify", str(tmp_path / "cnn.onnx"), str(tmp_path / "cnn.edge"), "--device", "qemu", "--json"])
    out, err = capsys.readouterr()
    assert caught.value.code == 0 and "cortex-a72" in err
    assert json.loads(out)["outputs"]["logits"]["relative"] < 1e-5
    with pytest.raises(SystemExit) as caught:
        main(["profile", str(tmp_path / "cnn.edge"), "--device", "qemu", "--runs", "2", "--json"])
    record = json.loads(capsys.readouterr().out)
    assert caught.value.code == 0 and "cortex-a72" in record["device"] and record["peak_gflops"] is None
    assert sum(row["macs"] for row in record["kernels"]) > 0 and all(row["calls"] > 0 for row in record["kernels"])
