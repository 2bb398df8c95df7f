"""What a user changes in a model before it is compiled: a new head, and inputs that are images."""

from __future__ import annotations

from dataclasses import dataclass

from edgec.graph.errors import UserError

Numbers = tuple[float, ...]


@dataclass(frozen=True)
class NewHead:
    """A fresh dense layer of `classes` outputs in place of the model's; valid once constructed (UserError E0111).

    `node` names the layer that goes (an ONNX node), None for the last one. `seed` draws the new weights.
    """

    classes: int
    node: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.classes < 1:
            raise UserError("E0111", f"a head of {self.classes} outputs: it needs at least 1", where="new head")
        if self.seed < 0:
            raise UserError("E0111", f"seed {self.seed}: it must not be negative", where="new head")


@dataclass(frozen=True)
class ImageInput:
    """An input that takes u8 images [N,H,W,C]; valid once constructed (UserError E0111).

    The model sees (pixel / 255 - mean) / std, torchvision's `ToTensor` and `Normalize`: `mean` and `std` are one number
    for all channels or one for each, on the scale of 0 to 1.
    """

    mean: Numbers
    std: Numbers

    def __post_init__(self) -> None:
        if not self.mean or not self.std or 1 < len(self.mean) != len(self.std) > 1:
            message = f"{len(self.mean)} means and {len(self.std)} deviations: one, or one for each channel"
            raise UserError("E0111", message, where="image input")
        if not all(deviation > 0 for deviation in self.std):
            raise UserError("E0111", "a standard deviation must be greater than 0", where="image input")

    def affine(self, channels: int) -> tuple[list[float], list[float]]:
        """(scale, shift) per channel, such that the model sees pixel * scale + shift. In double precision."""
        mean, std = (values * channels if len(values) == 1 else values for values in (self.mean, self.std))
        return [1 / (255 * s) for s in std], [-m / s for m, s in zip(mean, std, strict=True)]
