"""normalise_input: u8 images in, (pixel / 255 - mean) / std to the model, as torchvision has it."""

import numpy as np
import pytest

from edgec.compiler.adapt import ImageInput
from edgec.compiler.passbase import Options
from edgec.compiler.passes.normalise_input import normalise_input
from edgec.compiler.pipeline import transform_module
from edgec.compiler.train import Train
from edgec.graph.errors import UserError
from edgec.graph.interp import run
from edgec.graph.parse import parse_module
from edgec.tools.testing.pass_check import check_becomes
from edgec.tools.testing.programs import initialise

MODEL = """
graph infer {
  input %x: f32[1,3,4,5]
  input %z: f32[1,2]
  param %w: f32[2,3,4,5]
  %c: f32[1,2,1,1] = conv2d(%x, %w)
  %y: f32[1,2] = reshape(%c) {shape=(1,2)}
  %s: f32[1,2] = add(%y, %z)
  output "s" = %s
}
"""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def test_one_mean_and_deviation_for_all_channels() -> None:
    """1 / (255 * 0.5) and -0.25 / 0.5. The input keeps its place."""
    check_becomes(
        normalise_input,
        MODEL,
        """
        graph infer {
          input %x: u8[1,4,5,3]
          input %z: f32[1,2]
          param %w: f32[2,3,4,5]
          constant %x.scale: f32[3,1,1] = [0.007843138, 0.007843138, 0.007843138]
          constant %x.shift: f32[3,1,1] = [-0.5, -0.5, -0.5]
          %planes: u8[1,3,4,5] = transpose(%x) {perm=(0,3,1,2)}
          %floats: f32[1,3,4,5] = cast(%planes) {to="f32"}
          %scaled: f32[1,3,4,5] = mul(%floats, %x.scale)
          %normalised: f32[1,3,4,5] = add(%scaled, %x.shift)
          %c: f32[1,2,1,1] = conv2d(%normalised, %w)
          %y: f32[1,2] = reshape(%c) {shape=(1,2)}
          %s: f32[1,2] = add(%y, %z)
          output "s" = %s
        }
        """,
        Options(images={"x": ImageInput((0.25,), (0.5,))}),
    )


def test_the_model_sees_what_torchvision_would_give_it() -> None:
    options = Options(images={"x": ImageInput(MEAN, STD)})
    plain, module = initialise(parse_module(MODEL)), initialise(parse_module(MODEL))
    normalise_input(module, options)
    rng = np.random.default_rng(0)
    image, z = rng.integers(0, 256, (1, 4, 5, 3)).astype(np.uint8), rng.standard_normal((1, 2)).astype(np.float32)
    x = ((image / 255.0 - MEAN) / STD).transpose(0, 3, 1, 2)
    expected = run(plain.programs["infer"], {"x": x, "z": z}, dtype=np.float64).outputs["s"]
    got = run(module.programs["infer"], {"x": image, "z": z}, dtype=np.float64).outputs["s"]
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_training_takes_images_too() -> None:
    text = MODEL.replace("  input %z: f32[1,2]\n", "").replace("add(%y, %z)", "relu(%y)")
    module = initialise(parse_module(text))
    assert transform_module(module, Options(images={"x": ImageInput(MEAN, STD)}, train=Train(batch=8)))
    assert str(module.programs["train"].leaves["x"].type) == "u8[8,4,5,3]"


def test_without_images_nothing_happens() -> None:
    check_becomes(normalise_input, MODEL, MODEL, Options())


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ({"y": ImageInput((0.5,), (0.5,))}, "no input `y`"),
        ({"w": ImageInput((0.5,), (0.5,))}, "no input `w`"),
        ({"z": ImageInput((0.5,), (0.5,))}, r"`z` is f32\[1,2\]"),
        ({"x": ImageInput((0.5, 0.5), (0.5,))}, "2 means or deviations for 3 channels"),
    ],
)
def test_what_cannot_be_an_image_is_refused(images: dict[str, ImageInput], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        normalise_input(initialise(parse_module(MODEL)), Options(images=images))
    assert caught.value.code == "E0111"


@pytest.mark.parametrize(("mean", "std"), [((), (1.0,)), ((1.0,), (0.0,)), ((0.1, 0.2), (1.0, 1.0, 1.0))])
def test_numbers_are_checked_when_they_are_written_down(mean: tuple, std: tuple) -> None:
    with pytest.raises(UserError):
        ImageInput(mean, std)
