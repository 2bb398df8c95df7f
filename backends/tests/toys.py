"""A kernel spec for tests of the build; its code is in `toy_emitter`, which loads tvm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgec.backends.base import Argument, CodeImage, Progress
from edgec.backends.targets import find_target
from edgec.backends.tvm.build import build
from edgec.graph.types import DType
from edgec.runtime.abi import Access

ELEMENTS = 64
FILLED = 1024  # elements that `fill` makes zero: more than LLVM stores without a call


@dataclass(frozen=True)
class ToySpec:
    """y = factor * x + x on ELEMENTS floats, as many a task as the target has lanes; or trouble at compile time."""

    factor: float = 3.25
    behaviour: str = "scale"

    @property
    def stem(self) -> str:
        return f"f32_toy_{self.behaviour}"

    @property
    def arguments(self) -> tuple[Argument, ...]:
        return (Argument(DType.F32, ELEMENTS, Access.READ), Argument(DType.F32, ELEMENTS, Access.WRITE))


def build_toys(specs: Sequence[ToySpec], target: str, progress: Progress | None = None) -> CodeImage:
    return build(specs, find_target(target), progress=progress, emitter="toy_emitter")
